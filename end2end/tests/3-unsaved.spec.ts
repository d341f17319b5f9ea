// Edits that are not saved: nobody leaves them by a click or by the way back without being asked.

import type { Page } from '@playwright/test';
import { expect, test } from '../fixtures/test';

const question = (page: Page) => page.getByRole('dialog', { name: 'Leave without saving?' });
const keep = (page: Page) => question(page).getByRole('button', { name: 'Keep editing' }).click();
const discard = (page: Page) => question(page).getByRole('button', { name: 'Discard changes' }).click();

test('the way back asks, as often as it is tried', async ({ register, servicePage, dialog, page }) => {
  const service = await register(undefined, { settings: null });
  await servicePage.open(service.id);
  const before = page.url();
  await servicePage.build.click();
  const { settings } = dialog;
  await settings.noCache.check();
  const here = page.url();
  for (let i = 0; i < 2; i++) {
    await page.goBack();
    await expect(question(page)).toBeVisible();
    expect(page.url(), 'the address is that of the form').toBe(here);
    await keep(page);
    await expect(question(page)).toBeHidden();
    await expect(settings.noCache).toBeChecked();
  }
  await page.goBack();
  await discard(page);
  await expect(dialog.root).toBeHidden();
  expect(page.url()).toBe(before);

  await servicePage.build.click();
  await expect(settings.noCache, 'the edit is gone').not.toBeChecked();
  await page.goBack();
  await expect(dialog.root, 'nothing is asked without an edit').toBeHidden();
  await expect(question(page)).toBeHidden();
});

test('the way forward asks too', async ({ register, dialog, page }) => {
  const service = await register();
  await dialog.openSettings(service.id);
  await dialog.tab('Help').click();
  await expect(dialog.root.getByRole('heading', { level: 3 }).first()).toBeVisible();
  await page.goBack();
  await dialog.settings.noCache.check();
  await page.goForward();
  await keep(page);
  await expect(dialog.settings.noCache).toBeChecked();
  await page.goForward().catch(() => null);
  await dialog.tab('Help').click();
  await discard(page);
  await expect(dialog.tab('Help')).toHaveAttribute('aria-selected', 'true');
});

test('Add service asks before what was typed is lost', async ({ services, page }) => {
  await services.open();
  await services.add.click();
  const { addDialog } = services;
  await addDialog.name.fill('half a service');
  for (const leave of [
    () => page.keyboard.press('Escape'),
    () => addDialog.root.getByRole('link', { name: 'Cancel' }).click(),
    () => page.goBack(),
  ]) {
    await leave();
    await expect(question(page)).toBeVisible();
    await keep(page);
    await expect(addDialog.name).toHaveValue('half a service');
  }
  await addDialog.root.getByRole('link', { name: 'Close' }).click();
  await discard(page);
  await expect(addDialog.root).toBeHidden();
  await expect(services.add, 'the focus returns to where it was').toBeFocused();
});

for (const [name, edit, field] of [
  ['Registry Settings', 'registry', 'Registry username'],
  ['Git Settings', 'source', 'Default branch'],
] as const) {
  test(`${name} asks, and not after it has been saved`, async ({ register, servicePage, page }) => {
    const service = await register();
    await servicePage.open(service.id);
    const opener = page.getByRole('button', { name, exact: true });
    await opener.click();
    const form = page.getByRole('dialog', { name });
    const input = form.getByLabel(field);
    const stored = await input.inputValue();
    await input.fill('another');
    await page.goBack();
    await expect(question(page)).toBeVisible();
    expect(page.url()).toContain(`edit=${edit}`);
    await keep(page);
    await expect(input).toHaveValue('another');
    await input.fill(stored);
    await form.getByRole('button', { name: 'Save' }).click();
    await expect(form).toBeHidden();
    await expect(question(page)).toBeHidden();
    await expect(opener, 'the focus returns to where it was').toBeFocused();
  });
}

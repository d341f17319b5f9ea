// Configuring a build: the tab Settings.

import { expect, test } from '../fixtures/test';
import { BuildDialog } from '../pages/build-dialog';

const SAVED = 'Build settings saved';

test('the Build stage opens Settings first and Run afterwards', async ({ register, servicePage, dialog, page }) => {
  const service = await register(undefined, { settings: null });
  await servicePage.open(service.id);
  await servicePage.build.click();
  await expect(dialog.root).toBeVisible();
  await expect(dialog.tab('Settings')).toHaveAttribute('aria-selected', 'true');
  await dialog.settings.save.click();
  await expect(dialog.settings.message(SAVED)).toBeVisible();

  await dialog.close.click();
  await expect(dialog.root).toBeHidden();
  await servicePage.build.click();
  await expect(dialog.tab('Run')).toHaveAttribute('aria-selected', 'true');
  await page.goBack();
  await expect(dialog.root, 'the dialog is part of the address').toBeHidden();
  await page.goForward();
  await expect(dialog.root).toBeVisible();
});

test('a path, a profile and No Cache are saved and shown again', async ({ register, dialog, page }) => {
  const service = await register(undefined, { settings: null });
  await dialog.openSettings(service.id);
  const { settings } = dialog;
  await expect(settings.autoDetect).toBeChecked();
  await expect(settings.path).toBeHidden();
  await settings.specifyPath.check();
  await expect(settings.path).toHaveAttribute('placeholder', './Dockerfile');
  await settings.path.fill('./docker/Dockerfile.prod');
  await settings.profile.selectOption('large');
  await settings.noCache.check();
  await settings.save.click();
  await expect(settings.message(SAVED)).toBeVisible();

  await page.reload();
  await expect(settings.specifyPath).toBeChecked();
  await expect(settings.path).toHaveValue('./docker/Dockerfile.prod');
  await expect(settings.profile).toHaveValue('large');
  await expect(settings.noCache).toBeChecked();
  await dialog.hydrated();
  await settings.autoDetect.check();
  await expect(settings.path).toBeHidden();
  await settings.save.click();
  await expect(settings.message(SAVED)).toBeVisible();
  await page.reload();
  await expect(settings.autoDetect).toBeChecked();
});

test('the sizes are named with what they mean', async ({ register, dialog }) => {
  const service = await register();
  await dialog.openSettings(service.id);
  const options = dialog.settings.profile.locator('option');
  await expect(options).toHaveText([/auto/, /small/, /medium/, /large/, /extra-large/, /2x-large/, /4x-large/]);
  await expect(options.nth(2)).toContainText(/2 .*4 GiB/);
});

test('context, arguments and target stage have no field', async ({ register, dialog }) => {
  const service = await register();
  await dialog.openSettings(service.id);
  await expect(dialog.settings.wizard).toBeDisabled();
  await expect(dialog.root.getByLabel(/context|argument|stage|target/i)).toHaveCount(0);
  await expect(dialog.root.getByText(`e2e/${service.name}`)).toBeVisible();
  await expect(dialog.root.getByRole('link', { name: 'Registry Settings' })).toBeVisible();
});

for (const [path, says] of [
  ['../Dockerfile', /leads out of the repository/],
  ['/etc/passwd', /without a leading slash/],
  ['docker/', /a folder/],
  ['', /needed/],
] as const) {
  test(`the path "${path}" is refused at its field`, async ({ register, dialog }) => {
    const service = await register();
    await dialog.openSettings(service.id);
    const { settings } = dialog;
    await settings.specifyPath.check();
    await settings.path.fill(path);
    await settings.save.click();
    await expect(settings.path).toHaveAttribute('aria-invalid', 'true');
    await expect(settings.path).toHaveAccessibleDescription(says);
    await expect(settings.path).toHaveValue(path);
    await expect(settings.message(SAVED)).toBeHidden();
  });
}

test('nobody leaves unsaved edits by a click', async ({ register, dialog, page }) => {
  const service = await register();
  await dialog.openSettings(service.id);
  const { settings } = dialog;
  await settings.noCache.check();

  const question = page.getByRole('dialog', { name: 'Leave without saving?' });
  for (const leave of [() => dialog.tab('Run').click(), () => dialog.close.click(), () => page.keyboard.press('Escape')]) {
    await leave();
    await expect(question).toBeVisible();
    await question.getByRole('button', { name: 'Keep editing' }).click();
    await expect(question).toBeHidden();
    await expect(settings.noCache).toBeChecked();
  }
  await dialog.tab('Run').click();
  await question.getByRole('button', { name: 'Discard changes' }).click();
  await expect(dialog.run.start).toBeVisible();
  await dialog.tab('Settings').click();
  await expect(settings.noCache, 'the edit is gone').not.toBeChecked();
  await dialog.tab('Run').click();
  await expect(dialog.run.start, 'nothing is asked without an edit').toBeVisible();
});

test('the browser asks before it closes a page with unsaved edits', async ({ register, dialog, page }) => {
  const service = await register();
  await dialog.openSettings(service.id);
  await dialog.settings.noCache.check();
  const asked = page.waitForEvent('dialog');
  await page.close({ runBeforeUnload: true });
  const question = await asked;
  expect(question.type()).toBe('beforeunload');
  await question.accept();
});

test('two people cannot overwrite each other unknowingly', async ({ register, dialog, page }) => {
  const service = await register();
  await dialog.openSettings(service.id);
  const other = new BuildDialog(await page.context().newPage());
  await other.openSettings(service.id);

  await other.settings.profile.selectOption('small');
  await other.settings.save.click();
  await expect(other.settings.message(SAVED)).toBeVisible();

  await dialog.settings.profile.selectOption('large');
  await dialog.settings.save.click();
  await expect(dialog.root.getByRole('alert').filter({ hasText: /Somebody else/ })).toBeVisible();
  await expect(dialog.settings.profile, 'what was chosen is still there').toHaveValue('large');
  await other.page.reload();
  await expect(other.settings.profile).toHaveValue('small');

  await dialog.root.getByRole('button', { name: 'Load the newer settings' }).click();
  await expect(dialog.settings.profile).toHaveValue('small');
  await dialog.settings.profile.selectOption('medium');
  await dialog.settings.save.click();
  await expect(dialog.settings.message(SAVED)).toBeVisible();
});

test('saving twice in one page is no conflict with oneself', async ({ register, dialog }) => {
  const service = await register();
  await dialog.openSettings(service.id);
  const { settings } = dialog;
  for (const profile of ['small', 'medium', 'large']) {
    await settings.profile.selectOption(profile);
    await expect(settings.message(SAVED)).toBeHidden();
    await settings.save.click();
    await expect(settings.message(SAVED)).toBeVisible();
  }
});

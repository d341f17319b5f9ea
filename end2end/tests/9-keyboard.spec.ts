// The whole way by keyboard alone.

import { ADMIN, NOBODY, expect, test } from '../fixtures/test';

test.describe('by keyboard alone', () => {
  test.use({ storageState: NOBODY });

  test('from the sign-in to the image', async ({ page, register, signIn, servicePage, dialog }) => {
    const service = await register(undefined, { settings: null });
    const press = (key: string) => page.keyboard.press(key);
    /** Tab by tab to something; whoever cannot be reached by few presses cannot be reached. */
    const reach = async (name: RegExp, presses = 40) => {
      for (let i = 0; i < presses; i++) {
        await press('Tab');
        const focused = page.locator(':focus');
        if ((await focused.count()) > 0 && name.test((await focused.ariaSnapshot()) ?? '')) {
          return focused;
        }
      }
      throw new Error(`${name} is not reached with the Tab key`);
    };

    await signIn.open();
    await reach(/textbox "User"/);
    await page.keyboard.type(ADMIN.user);
    await press('Tab');
    await page.keyboard.type(ADMIN.password);
    await press('Enter');
    await expect(page).toHaveURL(/\/services$/);

    await page.goto(`/services/edit/${service.id}`);
    await servicePage.hydrated();
    await press('Tab');
    await expect(page.locator(':focus')).toHaveAttribute('href', '#main');
    await press('Enter');
    const stage = await reach(/button "Build"/);
    await expect(stage, 'what has the focus is seen').toHaveCSS('outline-style', /solid|auto/);
    await press('Space');
    await expect(dialog.root).toBeVisible();
    await expect(dialog.root.locator(':focus').or(dialog.root.and(page.locator(':focus'))).first()).toBeAttached();
    await reach(/button "Save"/);
    await press('Enter');
    await expect(dialog.settings.message('Build settings saved')).toBeVisible();

    await dialog.tab('Settings').focus();
    await press('ArrowRight');
    await expect(dialog.tab('Run')).toHaveAttribute('aria-selected', 'true');
    await reach(/combobox "Branch"/);
    await press('ArrowDown');
    await expect(dialog.run.options.first()).toBeVisible();
    await press('Escape');
    await expect(dialog.run.options.first()).toBeHidden();
    await expect(dialog.root, 'Escape closes one thing at a time').toBeVisible();
    await reach(/button "Start Build"/);
    await press('Enter');
    await dialog.build.toBe('Success');
    await reach(/button "Copy image tag/);
    await press('Enter');
    await expect(dialog.root.getByText('Copied')).toBeAttached();

    // The keyboard stays inside the dialog.
    for (let i = 0; i < 60; i++) {
      await press('Tab');
      const outside = await page.evaluate(() => {
        const focused = document.activeElement;
        return focused !== document.body && !focused?.closest('dialog');
      });
      expect(outside).toBe(false);
    }
    await press('Escape');
    await expect(dialog.root).toBeHidden();
    await expect(servicePage.build, 'the focus returns to where it was').toBeFocused();
  });
});

test('what reads as a button answers to the space bar', async ({ page, register, services, servicePage }) => {
  const service = await register();
  await services.open();
  await services.add.focus();
  await page.keyboard.press('Space');
  await expect(services.addDialog.root).toBeVisible();
  const skip = page.getByRole('link', { name: 'Skip to the content' });
  await expect(skip, 'what lies behind is out of reach').toHaveAttribute('inert');
  await page.keyboard.press('Escape');
  await expect(services.add).toBeFocused();

  await servicePage.open(service.id);
  for (const name of ['Registry Settings', 'Git Settings']) {
    const opener = page.getByRole('button', { name, exact: true });
    await opener.focus();
    await page.keyboard.press('Space');
    await expect(page.getByRole('dialog', { name })).toBeVisible();
    await page.keyboard.press('Escape');
    await expect(opener).toBeFocused();
  }
});

test('an error has the focus when it comes', async ({ page, services }) => {
  await services.open();
  await services.add.click();
  const { addDialog } = services;
  await page.setViewportSize({ width: 1280, height: 480 });
  await addDialog.register.click();
  await expect(addDialog.name).toBeFocused();
  await expect(addDialog.name).toBeInViewport();
  await addDialog.register.click();
  await expect(addDialog.name, 'once more').toBeFocused();
});

test('whoever came by the address is led to the page behind', async ({ page, register, dialog }) => {
  const service = await register();
  await dialog.openRun(service.id);
  await page.keyboard.press('Escape');
  await expect(dialog.root).toBeHidden();
  await expect(page.locator('#main')).toBeFocused();
});

// The administrator's check: what the place where builds run really gives, and what to do.

import { expect, test } from '../fixtures/test';
import { CheckPage } from '../pages/check';

/** A check may take a minute, and waits for nothing else. */
const LIMIT = { timeout: 60_000 };

test('a check tries everything out and is still there later', async ({ page, register, services }) => {
  test.slow();
  await register();
  await services.open();
  await page.getByRole('link', { name: 'Settings', exact: true }).click();
  const check = new CheckPage(page);
  await expect(page.getByRole('heading', { name: 'Check', level: 1 })).toBeVisible();
  await expect(page.getByRole('link', { name: 'Settings', exact: true })).toHaveAttribute('aria-current', 'page');
  await check.hydrated();
  await check.run.click();
  await expect(page.getByRole('button', { name: 'Checking…' })).toBeDisabled();
  await expect(check.finding('Build')).toContainText('built a small image', LIMIT);
  await expect(check.finding('Build')).toContainText('OK');
  // One for each registry that services of this server name.
  await expect(check.finding('Registry').first()).toContainText('Builds reach');
  await expect(check.run).toBeEnabled();
  const found = await check.findings.count();
  await page.reload();
  await expect(check.findings).toHaveCount(found);
});

test.describe('before the program has loaded', () => {
  test.use({ javaScriptEnabled: false });

  test('a check is a form that leads back to its page', async ({ page }) => {
    test.slow();
    const check = new CheckPage(page);
    await page.goto('/settings/check');
    await check.run.click(LIMIT);
    await expect(page).toHaveURL(/\/settings\/check$/, LIMIT);
    await expect(check.finding('Build')).toContainText('built a small image', LIMIT);
  });
});

// Each screen and state as a picture: light and dark, wide and narrow, and in Korean.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from '@playwright/test';
import { Rig } from '../fixtures/rig';
import { ADMIN, Server } from '../fixtures/server';
import { NOBODY, expect, test } from '../fixtures/test';
import { CheckPage } from '../pages/check';
import { ServicesPage } from '../pages/services';
import { SignInPage } from '../pages/sign-in';
import { BROKEN, HUNGRY, ORDERS, SLOW } from './sample';

const OUT = join(import.meta.dirname, '../../docs/screens');
mkdirSync(OUT, { recursive: true });

const LOOKS = [
  { name: '', width: 1440, height: 900, colorScheme: 'light' },
  { name: '-dark', width: 1440, height: 900, colorScheme: 'dark' },
  { name: '-narrow', width: 390, height: 844, colorScheme: 'light' },
  { name: '-narrow-dark', width: 390, height: 844, colorScheme: 'dark' },
] as const;

async function shoot(page: Page, name: string): Promise<void> {
  await page.evaluate(() => document.fonts.ready);
  // Colours that change with the look.
  await page.waitForTimeout(300);
  // A fifth of a PNG's size; Playwright's own call does not offer it.
  const browser = await page.context().newCDPSession(page);
  const { data } = await browser.send('Page.captureScreenshot', { format: 'webp', quality: 90 });
  await browser.detach();
  writeFileSync(join(OUT, `${name}.webp`), Buffer.from(data, 'base64'));
}

const nothing = async () => {};

/** In all looks; `ready` says when there is something to see. */
async function pictures(page: Page, name: string, ready: () => Promise<void>): Promise<void> {
  for (const { name: look, colorScheme, ...size } of LOOKS) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await ready();
    await shoot(page, name + look);
  }
  await page.setViewportSize(LOOKS[0]);
  await page.emulateMedia({ colorScheme: 'light' });
}

/** The same page in Korean, wide and narrow, and back to English. */
async function korean(page: Page, name: string, ready: () => Promise<void> = nothing): Promise<void> {
  const cookie = { name: 'kiops_lang', url: page.url() };
  await page.context().addCookies([{ ...cookie, value: 'ko' }]);
  for (const { name: look, colorScheme, ...size } of LOOKS) {
    if (colorScheme === 'dark') continue;
    await page.setViewportSize(size);
    await page.reload();
    await page.locator('[data-hydrated]').waitFor({ state: 'attached' });
    await ready();
    await shoot(page, `${name}${look}-ko`);
  }
  await page.setViewportSize(LOOKS[0]);
  await page.context().addCookies([{ ...cookie, value: 'en' }]);
  await page.reload();
  await page.locator('[data-hydrated]').waitFor({ state: 'attached' });
}

test.describe('before anything is there', () => {
  test.use({ storageState: NOBODY });

  test('the first start', async ({ rig, browser }) => {
    const server = await Server.start(rig);
    const page = await browser.newPage({ baseURL: server.url });
    try {
      await page.goto(server.log.match(/http:\/\/127\.0\.0\.1:\d+\/\S+/)?.[0] ?? '');
      await pictures(page, 'set-password', nothing);
      await new SignInPage(page).choosePassword(ADMIN.password);
      const services = new ServicesPage(page);
      await expect(services.heading).toBeVisible();
      await pictures(page, 'services-empty', nothing);
      await korean(page, 'services-empty');
      await services.signOut();
      await expect(services.heading).toBeHidden();
      await pictures(page, 'sign-in', nothing);
      await korean(page, 'sign-in');
    } finally {
      await page.close();
      await server.stop();
    }
  });
});

test('registering', async ({ services, page, rig }) => {
  const repo = await rig.repo('storefront', ORDERS);
  await services.open();
  await services.add.click();
  const { addDialog } = services;
  await addDialog.fill({
    name: 'storefront',
    url: repo.url,
    token: Rig.gitToken,
    registry: rig.addresses.registry,
    image: 'Storefront',
    user: Rig.registryUser,
    password: Rig.registryPassword,
  });
  await addDialog.checkRepository.click();
  await expect(addDialog.defaultBranch).toHaveValue('main');
  await pictures(page, 'add-service', nothing);
  await addDialog.register.click();
  await expect(addDialog.imageName).toHaveAttribute('aria-invalid', 'true');
  await pictures(page, 'add-service-error', () => addDialog.imageName.scrollIntoViewIfNeeded());
});

test('a service, its settings, its builds', async ({ page, services, servicePage, dialog, api, register }) => {
  for (const name of ['storefront', 'invoices', 'payments', 'search']) {
    const other = await register(ORDERS, { name });
    if (name !== 'search') await api.start(other.id);
  }
  const service = await register(ORDERS, { name: 'orders' });
  const { repo } = service;
  await repo.commit('feature/refunds', { 'notes.md': 'Refunds\n' }, 'Add refunds');
  await repo.tag('v3.3.0', await repo.head('main'));
  const { build } = dialog;

  await api.run(service.id);
  const cached = await api.run(service.id);
  await repo.commit('feature/prices', BROKEN, 'Prices with tax by country');
  const failed = await api.run(service.id, 'feature/prices');
  await repo.commit('main', SLOW, 'Compile the admin pages too');

  await dialog.openRun(service.id);
  await dialog.run.branch.click();
  await expect(dialog.run.options.first()).toContainText('Compile the admin pages');
  await pictures(page, 'run-branches', async () => {
    if (!(await dialog.run.options.first().isVisible())) await dialog.run.branch.click();
  });
  await page.keyboard.press('Escape');
  await pictures(page, 'run', nothing);
  await korean(page, 'run');
  await dialog.run.branch.fill('mian');
  await page.keyboard.press('Tab');
  await pictures(page, 'run-mistyped', nothing);
  await dialog.run.choose('main');
  await dialog.run.start.click();
  await expect(build.log.log).toContainText('compiled src/api/orders.ts');
  await pictures(page, 'build-run-live', nothing);
  const live = page.url();
  await page.context().setOffline(true);
  await expect(dialog.banner).toBeVisible();
  await shoot(page, 'connection-lost');
  await page.context().setOffline(false);
  await expect(dialog.banner).toBeHidden();

  const waiting = await api.start(service.id, 'feature/refunds');
  await dialog.openBuild(service.id, waiting.id);
  await expect(build.status).toContainText('Queued');
  await pictures(page, 'build-queued', nothing);
  await page.goto(`/services/edit/${service.id}`);
  await pictures(page, 'service', nothing);
  await korean(page, 'service');
  await services.open();
  await pictures(page, 'services', nothing);
  await korean(page, 'services');

  await page.goto(live);
  await dialog.hydrated();
  await korean(page, 'build-run-live', () => expect(page.getByRole('log')).toBeVisible());
  await api.cancel(waiting.id);
  await build.toBe('Success');
  await pictures(page, 'build-success', nothing);
  await dialog.openBuild(service.id, cached.id);
  await build.toBe('Success');
  await pictures(page, 'build-cached', nothing);
  await dialog.openBuild(service.id, failed.id);
  await build.toBe('Failure');
  await pictures(page, 'build-failed', nothing);
  await korean(page, 'build-failed', () => expect(page.getByRole('log')).toBeVisible());

  await dialog.openHistory(service.id);
  await pictures(page, 'build-history', () => expect(dialog.history.rows).toHaveCount(5));
  await korean(page, 'build-history', () => expect(page.locator('table.history tbody tr')).toHaveCount(5));
  await dialog.openSettings(service.id);
  await dialog.settings.save.click();
  await expect(dialog.settings.message('Build settings saved')).toBeVisible();
  await pictures(page, 'build-settings', nothing);
  await korean(page, 'build-settings');
  await dialog.openSettings(service.id);
  await dialog.settings.specifyPath.check();
  await dialog.settings.path.fill('../Dockerfile');
  await dialog.settings.save.click();
  await expect(dialog.settings.path).toHaveAttribute('aria-invalid', 'true');
  await pictures(page, 'build-settings-error', nothing);
  await dialog.settings.discard.click();
  await dialog.tab('Help').click();
  await expect(dialog.root.getByRole('heading', { level: 3 }).first()).toBeVisible();
  await pictures(page, 'build-help', nothing);
  await korean(page, 'build-help');
  await servicePage.open(service.id);
  await servicePage.registrySettings.click();
  await expect(page.getByRole('dialog', { name: 'Registry Settings' })).toBeVisible();
  await pictures(page, 'registry-settings', nothing);
  await korean(page, 'registry-settings');
  await page.goto(`/services/edit/${service.id}?edit=source`);
  await expect(page.getByRole('dialog', { name: 'Git Settings' })).toBeVisible();
  await pictures(page, 'git-settings', nothing);
});

test('a build that needs more than its profile has', async ({ page, dialog, api, register }) => {
  const service = await register(HUNGRY, { name: 'reports', settings: { profile: 'small' } });
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  await dialog.build.toBe('Failure');
  await pictures(page, 'build-out-of-memory', nothing);
  await korean(page, 'build-out-of-memory', () => expect(page.getByRole('log')).toBeVisible());
  await dialog.openHistory(service.id);
  await pictures(page, 'build-history-profile', () => expect(dialog.history.rows).toHaveCount(1));
});

test('a check', async ({ page, register }) => {
  await register();
  const check = new CheckPage(page);
  await check.open();
  await check.hydrated();
  await pictures(page, 'check-empty', nothing);
  await check.run.click();
  await expect(check.finding('Build')).toContainText('built a small image', { timeout: 60_000 });
  await pictures(page, 'check', nothing);
  await korean(page, 'check');
});

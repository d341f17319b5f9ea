// Each screen and state as a picture: light and dark, wide and narrow, all of these in English and in Korean.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Locator, Page } from '@playwright/test';
import { Rig } from '../fixtures/rig';
import { ADMIN, Server } from '../fixtures/server';
import { NOBODY, expect, test } from '../fixtures/test';
import { CheckPage } from '../pages/check';
import { ServicesPage } from '../pages/services';
import { SignInPage } from '../pages/sign-in';
import { BROKEN, HUNGRY, ORDERS, SLOW } from './sample';

const OUT = join(import.meta.dirname, '../../docs/screens');
mkdirSync(OUT, { recursive: true });

/** The product's texts by key: the page objects know the English ones only. */
const KOREAN: Record<string, string> = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../app/locales/ko.json'), 'utf8'),
);

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

/** Runs for as long as the pictures take that need a running build. */
const WATCHED = { 'compile.sh': (SLOW['compile.sh'] ?? '').replace('sleep 4', 'sleep 6') };

/** In all looks; `ready` says when there is something to see. */
async function pictures(page: Page, name: string, ready: () => Promise<void>, language = ''): Promise<void> {
  for (const { name: look, colorScheme, ...size } of LOOKS) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await ready();
    await shoot(page, name + look + language);
  }
  await page.setViewportSize(LOOKS[0]);
  await page.emulateMedia({ colorScheme: 'light' });
}

/** The same page in another language, as if it were opened anew. */
async function speak(page: Page, language: 'en' | 'ko'): Promise<void> {
  await page.context().addCookies([{ name: 'kiops_lang', url: new URL(page.url()).origin, value: language }]);
  await page.reload();
  await page.locator('[data-hydrated]').waitFor({ state: 'attached' });
}

/** The same page in Korean, and back to English. `again` does once more what a page that is opened anew has forgotten. */
async function korean(
  page: Page,
  name: string,
  again: () => Promise<void> = nothing,
  ready: () => Promise<void> = nothing,
): Promise<void> {
  await speak(page, 'ko');
  await again();
  await pictures(page, name, ready, '-ko');
  await speak(page, 'en');
}

/** A button of the dialog, in Korean. */
function button(page: Page, key: string): Locator {
  return page.getByRole('dialog').getByRole('button', { name: KOREAN[key] ?? key, exact: true });
}

/** What stands in the dialog's inputs. Gives the way to write it into the same ones of a page in another language. */
async function typed(page: Page): Promise<() => Promise<void>> {
  const inputs = page.getByRole('dialog').locator('input');
  const before = await inputs.evaluateAll((all: HTMLInputElement[]) =>
    all.map(({ value, checked }) => ({ value, checked })),
  );
  return () =>
    inputs.evaluateAll(
      (all: HTMLInputElement[], before) => all.forEach((input, i) => Object.assign(input, before[i])),
      before,
    );
}

test.describe('before anything is there', () => {
  test.use({ storageState: NOBODY });

  test('the first start', async ({ rig, browser }) => {
    const server = await Server.start(rig);
    const page = await browser.newPage({ baseURL: server.url });
    try {
      await page.goto(server.log.match(/http:\/\/127\.0\.0\.1:\d+\/\S+/)?.[0] ?? '');
      await pictures(page, 'set-password', nothing);
      await korean(page, 'set-password');
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
  const again = await typed(page);
  await addDialog.register.click();
  await expect(addDialog.imageName).toHaveAttribute('aria-invalid', 'true');
  await pictures(page, 'add-service-error', () => addDialog.imageName.scrollIntoViewIfNeeded());

  await speak(page, 'ko');
  await again();
  await button(page, 'source.check').click();
  await expect(page.locator('.check-result').first()).toContainText('main');
  await pictures(page, 'add-service', nothing, '-ko');
  await button(page, 'add.register').click();
  const imageName = page.locator('#image_name');
  await expect(imageName).toHaveAttribute('aria-invalid', 'true');
  await pictures(page, 'add-service-error', () => imageName.scrollIntoViewIfNeeded(), '-ko');
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
  await repo.commit('main', WATCHED, 'Compile the admin pages too');

  await dialog.openRun(service.id);
  // The only ones there are, in any language.
  const branch = page.getByRole('combobox');
  const options = page.getByRole('option');
  const unfold = async () => {
    if (!(await options.first().isVisible())) await branch.click();
    await expect(options.first()).toContainText('Compile the admin pages');
  };
  const mistype = async () => {
    await branch.fill('mian');
    await page.keyboard.press('Tab');
    await expect(branch).toHaveAttribute('aria-invalid', 'true');
  };
  await unfold();
  await pictures(page, 'run-branches', unfold);
  await korean(page, 'run-branches', unfold, unfold);
  await pictures(page, 'run', nothing);
  await korean(page, 'run');
  await mistype();
  await pictures(page, 'run-mistyped', nothing);
  await korean(page, 'run-mistyped', mistype);
  await dialog.run.choose('main');
  await dialog.run.start.click();
  await expect(build.log.log).toContainText('compiled src/api/orders.ts');
  const live = page.url();
  const logged = () => expect(page.getByRole('log')).toBeVisible();
  const banner = page.locator('.banner p');
  const unplugged = async (language?: string) => {
    await page.context().setOffline(true);
    await expect(banner).toBeVisible();
    await pictures(page, 'connection-lost', nothing, language);
    await page.context().setOffline(false);
    await expect(banner).toBeHidden();
  };
  await pictures(page, 'build-run-live', nothing);
  await unplugged();
  await speak(page, 'ko');
  await logged();
  await pictures(page, 'build-run-live', nothing, '-ko');
  await unplugged('-ko');
  await speak(page, 'en');

  const waiting = await api.start(service.id, 'feature/refunds');
  await dialog.openBuild(service.id, waiting.id);
  await expect(build.status).toContainText('Queued');
  await pictures(page, 'build-queued', nothing);
  await korean(page, 'build-queued');
  await page.goto(`/services/edit/${service.id}`);
  await pictures(page, 'service', nothing);
  await korean(page, 'service');
  await services.open();
  await pictures(page, 'services', nothing);
  await korean(page, 'services');
  await api.cancel(waiting.id);

  const watched = new URL(live).searchParams.get('id') ?? '';
  await expect.poll(async () => (await api.build(watched)).status, { timeout: 90_000 }).toBe('success');
  await page.goto(live);
  await dialog.hydrated();
  await build.toBe('Success');
  await pictures(page, 'build-success', nothing);
  await korean(page, 'build-success', logged);
  await dialog.openBuild(service.id, cached.id);
  await build.toBe('Success');
  await pictures(page, 'build-cached', nothing);
  await korean(page, 'build-cached', logged);
  await dialog.openBuild(service.id, failed.id);
  await build.toBe('Failure');
  await pictures(page, 'build-failed', nothing);
  await korean(page, 'build-failed', logged);

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
  await korean(page, 'build-settings-error', async () => {
    const path = page.locator('#path');
    await page.locator('[name=mode][value=path]').check();
    await path.fill('../Dockerfile');
    await button(page, 'dialog.save').click();
    await expect(path).toHaveAttribute('aria-invalid', 'true');
  });
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
  await korean(page, 'git-settings');
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
  await korean(page, 'build-history-profile', () => expect(page.locator('table.history tbody tr')).toHaveCount(1));
});

test('a check', async ({ page, register }) => {
  await register();
  const check = new CheckPage(page);
  await check.open();
  await check.hydrated();
  await pictures(page, 'check-empty', nothing);
  await korean(page, 'check-empty');
  await check.run.click();
  await expect(check.finding('Build')).toContainText('built a small image', { timeout: 60_000 });
  await pictures(page, 'check', nothing);
  await korean(page, 'check');
});

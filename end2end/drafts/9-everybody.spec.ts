// Everybody can use it: assistive programs, keyboards, small screens, few movements.

import AxeBuilder from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { ENDLESS, FAILING } from '../fixtures/sources';
import { ADMIN, NOBODY, expect, test } from '../fixtures/test';
import { Screen } from '../pages/frame';

class AnyScreen extends Screen {
  async open(path: string): Promise<void> {
    await this.goto(path);
  }
}

async function withoutViolations(page: Page, where: string): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']).analyze();
  const grave = violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' … ')}`);
  expect(grave, where).toEqual([]);
}

async function noSidewaysScroll(page: Page, where: string): Promise<void> {
  const [wide, seen] = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return [scrollWidth, clientWidth];
  });
  expect(wide, where).toBeLessThanOrEqual(seen ?? 0);
}

for (const colorScheme of ['light', 'dark'] as const) {
  test.describe(colorScheme, () => {
    test.use({ colorScheme });

    test('no screen has a grave fault for assistive programs', async ({ page, register, api, browser, server }) => {
      test.slow();
      const service = await register(FAILING);
      const failed = await api.run(service.id);
      await service.repo.commit('good', { Dockerfile: 'FROM busybox:1\nRUN echo fine\n' }, 'A good one');
      const good = await api.run(service.id, 'good');
      const edit = `/services/edit/${service.id}`;
      const screen = new AnyScreen(page);
      for (const path of [
        '/services',
        '/services?add=1',
        edit,
        `${edit}?edit=registry`,
        `${edit}?edit=source`,
        `${edit}?build=settings`,
        `${edit}?build=run`,
        `${edit}?build=run&id=${failed.id}`,
        `${edit}?build=run&id=${good.id}`,
        `${edit}?build=history`,
        `${edit}?build=help`,
      ]) {
        await screen.open(path);
        await withoutViolations(page, path);
      }
      const stranger = await browser.newContext({ baseURL: server.url, storageState: NOBODY, colorScheme });
      const door = await stranger.newPage();
      await door.goto('/sign-in');
      await withoutViolations(door, '/sign-in');
      await stranger.close();
    });

    test('nor has a build while it runs', async ({ page, register, dialog }) => {
      const service = await register(ENDLESS);
      await dialog.openRun(service.id);
      await dialog.run.start.click();
      await expect(dialog.build.log.log).toContainText('waiting for ever');
      await withoutViolations(page, 'a running build');
    });
  });
}

test('360 pixels are wide enough', async ({ page, register, api }) => {
  await page.setViewportSize({ width: 360, height: 740 });
  const service = await register(FAILING);
  const failed = await api.run(service.id);
  const edit = `/services/edit/${service.id}`;
  const screen = new AnyScreen(page);
  for (const path of [
    '/services',
    '/services?add=1',
    edit,
    `${edit}?build=settings`,
    `${edit}?build=run`,
    `${edit}?build=run&id=${failed.id}`,
    `${edit}?build=history`,
    `${edit}?build=help`,
  ]) {
    await screen.open(path);
    await noSidewaysScroll(page, path);
  }
});

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

test.describe('few movements', () => {
  test.use({ contextOptions: { reducedMotion: 'reduce' } });

  test('nothing moves when that is asked for', async ({ page, register, dialog }) => {
    const service = await register(ENDLESS);
    await dialog.openRun(service.id);
    await dialog.run.start.click();
    await expect(dialog.build.log.log).toContainText('waiting for ever');
    const moving = await page.evaluate(() =>
      document
        .getAnimations()
        .filter((a) => a.playState === 'running' && Number(a.effect?.getComputedTiming().duration) > 1)
        .map((a) => (a.effect as KeyframeEffect).target?.outerHTML),
    );
    expect(moving).toEqual([]);
  });
});

test('nothing jumps while a page loads', async ({ page, register }) => {
  const service = await register();
  await page.addInitScript(() => {
    Object.assign(window, { shifts: 0 });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) Object.assign(window, { shifts: Reflect.get(window, 'shifts') + Reflect.get(entry, 'value') });
    }).observe({ type: 'layout-shift', buffered: true });
  });
  const screen = new AnyScreen(page);
  for (const path of ['/services', `/services/edit/${service.id}`, `/services/edit/${service.id}?build=run`]) {
    await screen.open(path);
    await page.evaluate(() => document.fonts.ready);
    expect(await page.evaluate(() => Reflect.get(window, 'shifts')), path).toBeLessThan(0.1);
  }
});

test('the theme can be chosen and is there from the first byte', async ({ page, services }) => {
  await services.open();
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.getByRole('radio', { name: 'Dark' }).check({ force: true });
  await expect.poll(background).not.toBe(light);
  await page.reload({ waitUntil: 'commit' });
  await expect.poll(background).not.toBe(light);
});

test('Korean from one click on', async ({ page, services }) => {
  await services.open();
  await page.getByLabel(/^Account/).click();
  await page.getByRole('radio', { name: '한국어' }).click();
  await expect(page.locator('html')).toHaveAttribute('lang', 'ko');
  await expect(page.getByRole('heading', { level: 1 })).toHaveText(/[가-힣]/);
});

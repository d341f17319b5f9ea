// Everybody can use it: few movements, no jumps, dark or light, in one's own language.

import { ENDLESS } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';
import { AnyScreen } from '../pages/frame';

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
  const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
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

// Watching a build: everybody sees the same, and nothing is lost or seen twice, whatever breaks on the way.

import { readFile } from 'node:fs/promises';
import { ENDLESS, FAILING, chatty, ticking } from '../fixtures/sources';
import { expect, secondPage, test } from '../fixtures/test';
import { BuildDialog } from '../pages/build-dialog';

test('two people see the same build', async ({ register, dialog, page, api }) => {
  const service = await register(ticking(30));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  await expect(dialog.build.log.log).toContainText('tick 2 of 30');

  const other = new BuildDialog(await secondPage(page));
  await other.page.goto(page.url());
  await expect(other.build.log.log).toContainText('tick 5 of 30');
  for (const { build } of [dialog, other]) await build.toBe('Success');
  expect(await other.build.steps.allInnerTexts()).toEqual(await dialog.build.steps.allInnerTexts());
  const [stored] = await api.builds(service.id);
  const log = await api.log(stored?.id ?? '');
  for (const { build } of [dialog, other]) await build.log.toShow(log);
  await other.page.context().close();
});

test('following stops where one reads and goes on at the end', async ({ register, dialog }) => {
  const service = await register(ticking(100));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { log } = dialog.build;
  await expect(log.follow).toBeChecked();
  await expect(log.log).toContainText('tick 50 of 100');
  await log.log.hover();
  await dialog.page.mouse.wheel(0, -10_000);
  await expect(log.follow).not.toBeChecked();
  await expect(log.row(1)).toBeInViewport();
  const total = await log.log.evaluate((log) => log.scrollHeight);
  await expect.poll(() => log.log.evaluate((log) => log.scrollHeight)).toBeGreaterThan(total + 100);
  await expect(log.row(1), 'news do not move what one reads').toBeInViewport();
  await log.follow.click();
  await expect(log.log).toContainText(/tick (7|8|9)\d of 100/);
  await dialog.build.toBe('Success');
  await expect(log.log).toContainText('tick 100 of 100');
});

test('search goes from hit to hit and around', async ({ register, dialog, api }) => {
  const service = await register(chatty(3_000));
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  await log.search.fill('LINE 77');
  await log.search.press('Enter');
  await expect(log.log.locator('mark').first()).toBeInViewport();
  await expect(log.log).toContainText(/line 77$/m);
  await log.search.press('Enter');
  await expect(log.log).toContainText('line 770');
  await log.search.fill('not in this log');
  await log.search.press('Enter');
  await expect(log.said).toContainText(/Not found/);
});

test('a log of 60,000 lines is a window', async ({ register, dialog, api }) => {
  const service = await register(chatty(60_000));
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  await expect(log.log).toContainText('the end');
  const sizes = [await log.size()];
  for (const place of ['top', 'middle', 'end', 'middle', 'top'] as const) {
    await log.scrollTo(place);
    await expect
      .poll(async () => {
        const drawn = await log.drawn();
        const line = Number(drawn.map(([, text]) => text.match(/ line (\d+)$/)?.[1]).find(Boolean) ?? 0);
        return { top: line > 0 && line < 100, middle: line > 29_900 && line < 30_100, end: line > 59_900 }[place];
      })
      .toBe(true);
    sizes.push(await log.size());
  }
  expect(Math.max(...sizes), 'elements of the log').toBeLessThan(1_000);

  const drawn = await log.drawn();
  const stored = (await api.log(id)).split('\n');
  for (const [number, text] of drawn) {
    if (!stored[number - 1]?.startsWith('---')) expect(text).toBe(stored[number - 1]);
  }
});

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

test('a cut network leaves no hole and repeats nothing', async ({ register, dialog, page, api }) => {
  const service = await register(ticking(80));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { build } = dialog;
  await expect(build.log.log).toContainText('tick 5 of 80');
  await expect(dialog.banner).toBeHidden();
  const [started] = await api.builds(service.id);
  const id = started?.id ?? '';

  await page.context().setOffline(true);
  await expect(dialog.banner).toBeVisible();
  // More than the stream's own tail would be missed by a page that only went on from where the stream is now.
  await api.logged(id, 'tick 40 of 80');
  await expect(build.log.log).not.toContainText('tick 40 of 80');
  await page.context().setOffline(false);
  await expect(dialog.banner).toBeHidden();
  await expect(build.log.log).toContainText('tick 41 of 80');
  await build.toBe('Success');
  await build.log.toShow(await api.log(id));
});

test('a server that is killed in mid-build comes back and goes on', async ({ register, dialog, api, server }) => {
  const service = await register(ticking(80));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { build } = dialog;
  await expect(build.log.log).toContainText('tick 5 of 80');
  const [started] = await api.builds(service.id);
  const id = started?.id ?? '';

  await server.kill();
  await expect(dialog.banner).toBeVisible();
  await server.restart();
  await expect(dialog.banner).toBeHidden();
  await build.toBe('Success');

  const stored = await api.build(id);
  expect(stored).toMatchObject({ status: 'success', attempt: 1, log_verified: true });
  const log = await api.log(id);
  const ticks = log.match(/tick \d+ of 80$/gm) ?? [];
  expect(ticks).toEqual(Array.from({ length: 80 }, (_, i) => `tick ${i + 1} of 80`));
  await build.log.toShow(log);
});

test('a running build is cancelled', async ({ register, dialog, api }) => {
  const service = await register(ENDLESS);
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { build } = dialog;
  await expect(build.log.log).toContainText('waiting for ever');
  await build.cancel.click();
  await build.toBe('Cancelled');
  await expect(build.cancel).toBeHidden();
  expect((await api.builds(service.id))[0]).toMatchObject({ status: 'cancelled', image_tag: null });
});

test('a queued build is cancelled and never runs', async ({ register, dialog, api }) => {
  const service = await register(ENDLESS);
  const running = await api.start(service.id);
  const queued = await api.start(service.id);
  await dialog.openBuild(service.id, queued.id);
  await expect(dialog.build.status).toHaveText(/Queued/);
  await dialog.build.cancel.click();
  await dialog.build.toBe('Cancelled');
  await api.cancel(running.id);
  await api.finished(running.id);
  expect(await api.build(queued.id)).toMatchObject({ status: 'cancelled', steps: [] });
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

test('a step leads to its lines, and a row has an address', async ({ register, dialog, api, page }) => {
  const service = await register(chatty(3_000));
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { build } = dialog;
  await build.step('RUN seq').open();
  await expect(build.log.log.getByText('RUN seq 1 3000')).toBeInViewport();
  await expect(build.log.log).toContainText('line 1');

  const found = (await build.log.drawn()).find(([, text]) => text.endsWith(' line 3'));
  await build.log.row(found?.[0] ?? 0).getByRole('link').click();
  await expect(page).toHaveURL(new RegExp(`row=${found?.[0]}`));
  await page.reload();
  await expect(build.log.row(found?.[0] ?? 0)).toBeInViewport();
  await expect(build.log.row(found?.[0] ?? 0)).toContainText('line 3');
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

test('the log can be wrapped, freed of its times, copied and downloaded', async ({ register, dialog, api, page }) => {
  const service = await register(FAILING);
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  await log.wrap.click();
  await expect(log.wrap).toBeChecked();
  await log.times.click();
  await expect(log.times).not.toBeChecked();
  await page.reload();
  await expect(log.wrap, 'how one likes to read is remembered').toBeChecked();

  const stored = await api.log(id);
  await dialog.hydrated();
  await log.copy.click();
  await expect(log.said).toContainText(/copied/i);
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(stored);
  const download = page.waitForEvent('download');
  await log.download.click();
  const file = await download;
  expect(file.suggestedFilename()).toContain(service.name);
  expect(await readFile(await file.path(), 'utf8')).toBe(stored);
});

test('what a program prints is text, whatever it is', async ({ register, dialog, api, page }) => {
  const service = await register({
    Dockerfile: `FROM busybox:1
RUN printf '<img src=x onerror="document.title=1">\\n\\033[31mred\\033[0m \\033]0;title\\007\\n\\000\\001\\377 binary\\n50%%\\r100%%\\n'
`,
  });
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  await expect(log.log).toContainText('<img src=x onerror="document.title=1">');
  await expect(log.log.getByText('red', { exact: true })).toHaveClass(/f1/);
  await expect(log.log).toContainText('binary');
  await expect(log.log).toContainText('100%');
  await expect(log.log.locator('img')).toHaveCount(0);
  await expect(page).not.toHaveTitle('1');
});

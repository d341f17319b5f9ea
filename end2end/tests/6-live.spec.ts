// Watching a build: everybody sees the same, and nothing is lost or seen twice, whatever breaks on the way.

import { readFile } from 'node:fs/promises';
import { ENDLESS, FAILING, chatty, ticking } from '../fixtures/sources';
import { expect, secondPage, test } from '../fixtures/test';
import { BuildDialog } from '../pages/build-dialog';

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

// Watching a build: everybody sees the same, and nothing is lost or seen twice, whatever breaks on the way.

import { Proxy } from '../fixtures/proxy';
import { ENDLESS, FAILING, FAILING_LATE, ticking } from '../fixtures/sources';
import { ADMIN, expect, secondPage, test } from '../fixtures/test';
import { BuildDialog } from '../pages/build-dialog';
import type { LogView } from '../pages/log-view';
import { SignInPage } from '../pages/sign-in';

/** The last tick that the page shows; 0 before the first. */
const lastTick = (log: LogView) => log.lastTick();

/** What a build uses now; the most that it used once it is over. */
const usage = ({ build }: BuildDialog) => build.root.getByRole('group', { name: 'Usage', exact: true });
/** An ordinary user's builds have no control group, and so nothing that could be counted. */
const measured = process.getuid?.() === 0;

test('two people see the same build', async ({ register, dialog, page, api }) => {
  test.slow();
  const service = await register(ticking(300));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  await expect.poll(() => lastTick(dialog.build.log)).toBeGreaterThan(1);

  const other = new BuildDialog(await secondPage(page));
  await other.page.goto(page.url());
  await expect.poll(() => lastTick(other.build.log)).toBeGreaterThan(4);
  for (const watching of measured ? [dialog, other] : []) {
    await expect(usage(watching)).toContainText(/CPU\s*\d+(\.\d)? cores?/);
    // A step that runs has some memory; on the disk it may have left nothing yet.
    await expect(usage(watching)).toContainText(/Memory\s*[\d.]*[1-9][\d.]* [KMG]iB/);
    await expect(usage(watching)).toContainText(/Disk\s*\d+(\.\d)? ([KMGT]i)?B/);
    // More than one sample makes a line.
    await expect(usage(watching).locator('polyline').first()).toHaveAttribute('points', /^\d+,\d+ \d+,\d+ /);
    await expect(watching.build.status).toHaveText(/In Progress/);
  }
  for (const { build } of [dialog, other]) await build.toBe('Success');
  expect(await other.build.steps.allInnerTexts()).toEqual(await dialog.build.steps.allInnerTexts());
  if (measured) await expect(usage(other)).toHaveText((await usage(dialog).textContent()) ?? '');
  const [stored] = await api.builds(service.id);
  const log = await api.log(stored?.id ?? '');
  for (const { build } of [dialog, other]) await build.log.toShow(log);
  await other.page.context().close();
});

test('a cut network leaves no hole and repeats nothing', async ({ register, dialog, page, api }) => {
  test.slow();
  const service = await register(ticking(250));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { build } = dialog;
  await expect.poll(() => lastTick(build.log)).toBeGreaterThan(4);
  await expect(dialog.banner).toBeHidden();
  const [started] = await api.builds(service.id);
  const id = started?.id ?? '';

  await page.context().setOffline(true);
  await expect(dialog.banner).toBeVisible();
  // More than a screen would be missed by a page that only went on from where the stream is now.
  const heard = await lastTick(build.log);
  await api.logged(id, `tick ${heard + 35} of 250`);
  expect(await lastTick(build.log)).toBe(heard);
  await page.context().setOffline(false);
  await expect(dialog.banner).toBeHidden();
  await expect.poll(() => lastTick(build.log)).toBeGreaterThan(heard + 35);
  await build.toBe('Success');
  await build.log.toShow(await api.log(id));
});

test('a server that is killed in mid-build comes back and goes on', async ({ register, dialog, api, server }) => {
  test.slow();
  const service = await register(ticking(150));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { build } = dialog;
  await expect.poll(() => lastTick(build.log)).toBeGreaterThan(4);
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
  const ticks = log.match(/tick \d+ of 150$/gm) ?? [];
  expect(ticks).toEqual(Array.from({ length: 150 }, (_, i) => `tick ${i + 1} of 150`));
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

test('a connection that has died without a word is noticed and replaced', async ({ register, dialog, page, api, server }) => {
  test.slow();
  const service = await register(ticking(900));
  const { id } = await api.start(service.id);
  const proxy = await Proxy.to(server.url);
  try {
    await page.clock.install();
    await page.goto(`${proxy.url}/services/edit/${service.id}?build=run&id=${id}`);
    await dialog.hydrated();
    const { build } = dialog;
    const { log } = build;
    const last = () => lastTick(log);
    await expect.poll(last).toBeGreaterThan(0);
    // The stream, and not the page as it came.
    const first = await last();
    await expect.poll(last).toBeGreaterThan(first);
    expect(proxy.swallow(/GET \/builds\/\S+\/live/), 'streams').toBe(1);
    const heard = await last();
    await api.logged(id, `tick ${heard + 20} of 900`);
    expect(await last(), 'nothing comes through').toBeLessThan(heard + 20);
    await expect(dialog.banner).toBeHidden();
    // Three beats of the server are missing by now.
    await page.clock.fastForward(30_000);
    await expect.poll(last).toBeGreaterThan(heard + 20);
    await expect(dialog.banner).toBeHidden();
    await build.cancel.click();
    await build.toBe('Cancelled');
    await log.toShow(await api.log(id));
  } finally {
    await proxy.stop();
  }
});

test('a session that has ended leads to the door and back', async ({ register, dialog, page, api }) => {
  const service = await register(ENDLESS);
  const { id } = await api.start(service.id);
  await dialog.openBuild(service.id, id);
  await expect(dialog.build.log.log).toContainText('waiting for ever');
  await page.context().setOffline(true);
  await expect(dialog.banner).toBeVisible();
  await page.context().clearCookies();
  await page.context().setOffline(false);
  await expect(page).toHaveURL(/\/sign-in\?/);
  await new SignInPage(page).signIn(ADMIN);
  await expect(dialog.build.what).toContainText('#1');
  await expect(dialog.build.log.log).toContainText('waiting for ever');
  await expect(dialog.banner).toBeHidden();
});

test('a page that does not understand the server says so', async ({ register, dialog, page, api }) => {
  const service = await register(ENDLESS);
  const { id } = await api.start(service.id);
  await page.route(/\/builds\/[^/]+\/live/, (route) =>
    route.fulfill({ contentType: 'text/event-stream', body: 'data: {"type":"hologram"}\n\n' }),
  );
  await dialog.openBuild(service.id, id);
  await expect(dialog.build.root).toContainText('This page is out of date');
  await expect(dialog.banner).toBeHidden();
  await page.unroute(/\/builds\/[^/]+\/live/);
  await dialog.build.root.getByRole('button', { name: 'Reload' }).click();
  await expect(dialog.build.log.log).toContainText('waiting for ever');
  await expect(dialog.build.root).not.toContainText('This page is out of date');
});

test('a build that is gone is said, and not tried for ever', async ({ register, dialog, page, api }) => {
  const service = await register(ENDLESS);
  const { id } = await api.start(service.id);
  await dialog.openBuild(service.id, id);
  await expect(dialog.build.log.log).toContainText('waiting for ever');
  await page.context().setOffline(true);
  await expect(dialog.banner).toBeVisible();
  await page.route(/\/builds\/[^/]+\/live/, (route) => route.fulfill({ status: 404 }));
  await page.route('**/get_snapshot', (route) =>
    route.fulfill({ status: 404, json: { status: 'not_found', code: 'not_found', args: { what: 'build' } } }),
  );
  await page.context().setOffline(false);
  await expect(dialog.build.root).toContainText('There is no such build in this service');
  await expect(dialog.banner).toBeHidden();
});

test('an address of no build is not found', async ({ register, dialog, page, api }) => {
  const service = await register();
  const other = await register();
  const { id } = await api.start(other.id);
  for (const wrong of ['bld-aaaaaaaaaaaaaaaaaaaa', 'bld-12', '17', id]) {
    const reply = await page.goto(`/services/edit/${service.id}?build=run&id=${wrong}`);
    expect(reply?.status()).toBe(404);
    await expect(dialog.root).toContainText('There is no such build in this service');
  }
});

test('the focus stays with the build when its button goes', async ({ register, dialog, api, page }) => {
  const service = await register(ENDLESS);
  const { id } = await api.start(service.id);
  await dialog.openBuild(service.id, id);
  const { build } = dialog;
  await expect(build.log.log).toContainText('waiting for ever');
  await build.cancel.focus();
  await page.keyboard.press('Enter');
  await build.toBe('Cancelled');
  await expect(build.region).toBeFocused();
});

test('whoever waits is told for how long, and where', async ({ register, dialog, api, page }) => {
  test.slow();
  const service = await register(ticking(150));
  await api.run(service.id);
  await service.repo.commit('main', ENDLESS, 'This one takes longer');
  const [first, second, third] = [await api.start(service.id), await api.start(service.id), await api.start(service.id)];
  await expect.poll(async () => (await api.build(first.id)).status).toBe('building');
  await page.goto(`/services/edit/${service.id}?build=run&id=${third.id}`);
  const { build } = dialog;
  await expect(build.root).toContainText(/starts in about \d+:\d\d/);
  await expect(build.status).toHaveText('Queued · 2');
  await dialog.hydrated();
  await api.cancel(second.id);
  await expect(build.status).toHaveText('Queued · 1');
  await api.cancel(first.id);
  await expect(build.log.log).toContainText('waiting for ever');
  await expect(build.status).toHaveText(/In Progress/);
});

test('a failure on a low screen leaves lines to read', async ({ register, dialog, api, page }) => {
  const service = await register(FAILING);
  const { id } = await api.run(service.id);
  await page.setViewportSize({ width: 1366, height: 650 });
  await dialog.openBuild(service.id, id);
  const { build } = dialog;
  await expect(build.explanation).toBeVisible();
  await build.explanation.getByRole('link', { name: /Show line/ }).click();
  await expect(build.log.log.getByText('the cake is a lie', { exact: true })).toBeInViewport({ ratio: 1 });
  expect((await build.log.seen()).length).toBeGreaterThan(8);
});

test('the step that failed is in sight', async ({ register, dialog, api, page }) => {
  const service = await register(FAILING_LATE);
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { steps } = dialog.build;
  const failed = steps.filter({ hasText: 'too late' });
  await expect(failed).toBeInViewport({ ratio: 1 });
  await expect(steps.first()).not.toBeInViewport();
  // A hand on the list has the last word.
  await failed.hover();
  await page.mouse.wheel(0, -5000);
  await expect(steps.first()).toBeInViewport();
});

test('following stops where one reads and goes on at the end', async ({ register, dialog, api }) => {
  test.slow();
  const service = await register(ticking(250));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { log } = dialog.build;
  await expect(log.follow).toBeChecked();
  await expect.poll(() => lastTick(log)).toBeGreaterThan(50);
  const id = (await api.builds(service.id))[0]?.id ?? '';
  await log.log.hover();
  await dialog.page.mouse.wheel(0, -10_000);
  await expect(log.follow).not.toBeChecked();
  // The browser adds a line that came in the wheel's own moment to where the wheel leads: one more turn, as anybody does.
  await expect(async () => {
    await dialog.page.mouse.wheel(0, -10_000);
    await expect(log.row(1)).toBeInViewport({ timeout: 1000 });
  }).toPass({ timeout: 15_000 });
  const total = await log.log.evaluate((log) => log.scrollHeight);
  await expect.poll(() => log.log.evaluate((log) => log.scrollHeight)).toBeGreaterThan(total + 100);
  await expect(log.row(1), 'news do not move what one reads').toBeInViewport();
  await log.follow.click();
  await expect.poll(() => lastTick(log)).toBeGreaterThan(60);
  await dialog.build.toBe('Success');
  // The export's rows have come behind it.
  await expect(log.follow).toBeChecked();
  await expect(log.row((await api.log(id)).trimEnd().split('\n').length)).toBeInViewport();
  await log.find('tick 250 of 250');
});

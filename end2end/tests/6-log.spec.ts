// Reading a log: any row of any length can be reached, found, linked and taken along.

import { readFile } from 'node:fs/promises';
import type { Locator } from '@playwright/test';
import { FAILING, chatty } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';

/** Lines that fill several lines of any screen. */
const wide = (lines: number) => ({
  Dockerfile: `FROM busybox:1
RUN echo begin; seq 1 ${lines} | sed 's/.*/wide & ${'abcdefghi '.repeat(60)}& done/'
`,
});

/** A line of 60,000 letters with something at its end, and coloured ones. */
const LONG = {
  Dockerfile: `FROM busybox:1
RUN printf 'long '; head -c 60000 /dev/zero | tr '\\0' x; printf ' hay%s-end\\n' stack; \\
  printf '\\033[%dmred\\033[0mdish and \\033[1mplain\\033[0m\\n' 31; seq 1 300
`,
};

test('search goes from hit to hit and around', async ({ register, dialog, api }) => {
  const service = await register(chatty(3_000));
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  await log.search.fill('LINE 77');
  await log.search.press('Enter');
  await expect(log.marks.first()).toBeInViewport();
  await expect(log.log).toContainText(/line 77$/m, { useInnerText: true });
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
  const stored = (await api.log(id)).trimEnd().split('\n');
  const total = stored.length;
  for (const place of ['top', 'middle', 'end', 'middle', 'top'] as const) {
    await log.scrollTo(place);
    await expect
      .poll(async () => {
        const seen = await log.seen();
        const [first, last] = [seen[0] ?? 0, seen.at(-1) ?? 0];
        const middle = Math.abs((first + last) / 2 - total / 2) < 50;
        return { top: first === 1, middle, end: last === total }[place];
      })
      .toBe(true);
    sizes.push(await log.size());
  }
  expect(Math.max(...sizes), 'elements of the log').toBeLessThan(1_000);

  const drawn = await log.drawn();
  for (const [number, text] of drawn) {
    if (!stored[number - 1]?.startsWith('---')) expect(text).toBe(stored[number - 1]);
  }
});

test('a step leads to its lines, and a row has an address', async ({ register, dialog, api, page }) => {
  const service = await register(chatty(3_000));
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { build } = dialog;
  const header = build.log.log.getByText('RUN seq 1 3000');
  await build.step('RUN seq').open();
  await expect(header).toBeInViewport();
  await expect(build.log.log).toContainText('line 1');
  await build.log.scrollTo('end');
  await expect(header).toBeHidden();
  await build.step('RUN seq').open();
  await expect(header, 'once more').toBeInViewport();

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
  await log.find('onerror');
  await expect(log.log).toContainText('<img src=x onerror="document.title=1">');
  await expect(log.log.getByText('red', { exact: true })).toHaveClass(/f1/);
  await expect(log.log).toContainText('binary');
  await expect(log.log).toContainText('100%');
  await expect(log.log.locator('img')).toHaveCount(0);
  await expect(page).not.toHaveTitle('1');
});

test('every wrapped row can be reached', async ({ register, dialog, api, page }) => {
  test.slow();
  const service = await register(wide(60));
  const { id } = await api.run(service.id);
  const total = (await api.log(id)).trimEnd().split('\n').length;
  await dialog.openBuild(service.id, id);
  const { log, step } = { log: dialog.build.log, step: dialog.build.step('RUN echo begin') };
  await log.wrap.click();
  await expect(log.row(total), 'the end stays the end').toBeInViewport();

  await log.scrollTo('top');
  await expect(log.row(1)).toBeInViewport();
  await log.log.hover();
  const seen = new Set<number>();
  for (const [by, end] of [[380, total], [-380, 1]] as const) {
    seen.clear();
    for (let notches = 0; !seen.has(end) || !(await atEdge(log.log, by)); notches++) {
      expect(notches, 'moves of the wheel').toBeLessThan(300);
      await expect.poll(() => log.full(), 'no gap').toBe(true);
      for (const number of await log.seen()) seen.add(number);
      await page.mouse.wheel(0, by);
      // The wheel turns the page at the next frame.
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    }
    expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: total }, (_, i) => i + 1));
  }

  for (const place of ['end', 'middle', 'top', 'middle'] as const) {
    await log.scrollTo(place);
    await expect.poll(() => log.full(), place).toBe(true);
  }
  await log.find('wide 50 ');
  await step.open();
  await expect(log.log.getByText('RUN echo begin')).toBeInViewport();
  await expect.poll(() => log.full()).toBe(true);
  const [first] = await log.seen();
  await log.wrap.click();
  await expect.poll(() => log.seen(), 'what was in sight stays there').toContain(first);
  expect(await log.size()).toBeLessThan(1_500);
});

test('a failure is read wrapped, from its first error', async ({ register, dialog, api }) => {
  const service = await register({ Dockerfile: `${wide(80).Dockerfile}RUN echo ${'words '.repeat(100)}; exit 3\n` });
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  await log.wrap.click();
  await log.scrollTo('top');
  await expect(log.row(1)).toBeInViewport();
  await log.firstError.click();
  await expect(log.log.getByText(/ERROR: process/)).toBeInViewport();
});

test('of a very long line the page has the beginning, and all of it on demand', async ({ register, dialog, api }) => {
  const service = await register(LONG);
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  await dialog.build.step('RUN printf').open();
  const line = log.log.locator('.k-line').filter({ hasText: 'long xxx' });
  await expect(line).toBeInViewport();
  expect((await line.innerText()).length).toBeLessThan(5_000);
  await line.getByRole('button', { name: 'show all 58.6 KiB' }).click();
  await expect(line).toContainText('haystack-end');
  await expect(line.getByRole('button')).toBeHidden();

  await dialog.page.reload();
  await dialog.hydrated();
  await log.find('haystack-end');
  await log.wrap.click();
  await log.find('haystack-end');
});

test('what is searched for is what is seen', async ({ register, dialog, api }) => {
  const service = await register(LONG);
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  for (const shown of ['reddish and plain', 'Checking out the commit']) {
    await log.search.fill(shown);
    await log.search.press('Enter');
    await expect(log.said, shown).toHaveText(/line \d+/i);
  }
  await expect(log.marks.first()).toHaveText('Checking out the commit');
  await log.search.fill('[31m');
  await log.search.press('Enter');
  await expect(log.said).toHaveText('Not found');
});

test('a slow search says that it searches, and its answer does not overtake a newer one', async ({
  register,
  dialog,
  api,
  page,
}) => {
  const service = await register(chatty(500));
  const { id } = await api.run(service.id);
  await dialog.openBuild(service.id, id);
  const { log } = dialog.build;
  let answer = () => {};
  const held = new Promise<void>((done) => (answer = done));
  await page.route('**/search_log', async (route) => {
    if (route.request().postData()?.includes('line 100')) await held;
    await route.continue();
  });
  await log.search.fill('line 100');
  await log.search.press('Enter');
  await expect(log.said).toHaveText('Searching…');
  await log.find('line 300');
  const said = await log.said.innerText();
  const late = page.waitForResponse('**/search_log');
  answer();
  await (await late).finished();
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await expect(log.said).toHaveText(said);
  await expect(log.marks.first()).toHaveText('line 300');
});

test('a failure opens at its evidence, wherever that stands', async ({ register, dialog, api }) => {
  const service = await register({
    Dockerfile: `FROM busybox:1
RUN echo cause: the moon is full >&2; sleep 1; seq 1 3000 >&2; exit 3
`,
  });
  const { id } = await api.run(service.id);
  const row = (await api.build(id)).diagnosis?.evidence[0]?.row ?? -1;
  await dialog.openBuild(service.id, id);
  await expect(dialog.build.log.row(row + 1)).toBeInViewport();
});

test('a row’s address works behind a # too', async ({ register, dialog, api, page }) => {
  const service = await register(chatty(2_000));
  const { id } = await api.run(service.id);
  await page.goto(`/services/edit/${service.id}?build=run&id=${id}#row-700`);
  await dialog.hydrated();
  await expect(dialog.build.log.row(700)).toBeInViewport();
  await expect(dialog.build.log.row(700)).toHaveClass(/target/);
});

test('on a small screen a step leads down to its lines', async ({ register, dialog, api, page }) => {
  const service = await register(chatty(500));
  const { id } = await api.run(service.id);
  await page.setViewportSize({ width: 360, height: 740 });
  await dialog.openBuild(service.id, id);
  const header = dialog.build.log.log.getByText('RUN seq 1 500');
  for (const _ of [1, 2]) {
    await dialog.build.step('RUN seq').open();
    await expect(header).toBeInViewport();
    await dialog.build.what.scrollIntoViewIfNeeded();
  }
  expect(await dialog.root.evaluate((dialog) => dialog.scrollWidth)).toBe(360);
});

/** Whether the wheel cannot go on in a direction. */
function atEdge(log: Locator, by: number): Promise<boolean> {
  return log.evaluate(
    (log, by) => (by > 0 ? log.scrollTop + log.clientHeight >= log.scrollHeight - 1 : log.scrollTop <= 0),
    by,
  );
}

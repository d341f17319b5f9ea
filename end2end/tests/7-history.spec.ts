// The build history.

import { readFile } from 'node:fs/promises';
import { ENDLESS, FAILING, QUICK } from '../fixtures/sources';
import { type Service, expect, test } from '../fixtures/test';
import type { Api } from '../fixtures/api';

/** Builds that cost nothing: cancelled before they could begin. */
async function cancelled(api: Api, service: Service, branches: string[]): Promise<void> {
  await api.pauseQueue(true);
  try {
    for (const branch of branches) {
      const { id } = await api.start(service.id, branch, await service.repo.head(branch));
      await api.cancel(id);
    }
  } finally {
    await api.pauseQueue(false);
  }
}

test('newest first, with everything that tells builds apart', async ({ register, dialog, api, page, rig }) => {
  const service = await register(QUICK);
  const good = await api.run(service.id);
  await service.repo.commit('broken', FAILING, 'Break it');
  const bad = await api.run(service.id, 'broken');
  await cancelled(api, service, ['main']);

  await dialog.openHistory(service.id);
  const { history } = dialog;
  await expect(history.table.getByRole('columnheader')).toContainText([
    'Build Number',
    'Branch',
    'Commit',
    'Status',
    'Duration',
    'Image Tag',
    'When',
  ]);
  await expect(history.rows).toHaveCount(3);
  for (const [index, cells] of [
    ['#3', 'main', 'Cancelled'],
    ['#2', 'broken', bad.commit.slice(0, 7), 'Failure'],
    ['#1', 'main', good.commit.slice(0, 7), 'Success', `:main-1-${good.commit.slice(0, 7)}`, 'admin'],
  ].entries()) {
    for (const cell of cells) await expect(history.rows.nth(index)).toContainText(cell);
  }

  await history.row(1).getByRole('button', { name: 'Copy image tag' }).click();
  await expect
    .poll(() => page.evaluate(() => navigator.clipboard.readText()))
    .toBe(`${rig.addresses.registry}/${service.image}:main-1-${good.commit.slice(0, 7)}`);
});

test('a finished build opens with its whole log', async ({ register, dialog, api, page }) => {
  const service = await register();
  const build = await api.run(service.id);
  await dialog.openHistory(service.id);
  await dialog.history.row(1).getByRole('link', { name: '#1' }).click();
  await dialog.build.toBe('Success');
  await expect(page).toHaveURL(new RegExp(build.id));
  const stored = await api.log(build.id);
  await dialog.build.log.toShow(stored);
  const download = page.waitForEvent('download');
  await dialog.build.log.download.click();
  expect(await readFile(await (await download).path(), 'utf8')).toBe(stored);
});

test('View log leads to a failure, Rebuild builds the same commit again', async ({ register, dialog, api }) => {
  const service = await register(FAILING);
  const failed = await api.run(service.id);
  await service.repo.commit('main', QUICK, 'Mend it');
  await dialog.openHistory(service.id);
  await dialog.history.row(1).getByRole('link', { name: 'View log' }).click();
  await dialog.build.toBe('Failure');
  await expect(dialog.build.log.log).toContainText('ERROR');

  await dialog.tab('Build History').click();
  await dialog.history.row(1).getByRole('button', { name: 'Rebuild' }).click();
  await expect(dialog.build.what).toContainText('#2');
  await dialog.build.toBe('Failure');
  expect((await api.builds(service.id))[0]).toMatchObject({ number: 2, commit: failed.commit });
});

test('filters by status and branch, in the address', async ({ register, dialog, api, page }) => {
  const service = await register(QUICK);
  await service.repo.branch('other', 'main');
  await api.run(service.id);
  await cancelled(api, service, ['main', 'other', 'other']);

  await dialog.openHistory(service.id);
  const { history } = dialog;
  await expect(history.rows).toHaveCount(4);
  await history.status.selectOption({ label: 'Success' });
  await expect(history.rows).toHaveCount(1);
  await expect(history.row(1)).toBeVisible();
  await history.status.selectOption({ label: 'Cancelled' });
  await expect(history.rows).toHaveCount(3);
  await history.branch.selectOption('other');
  await expect(history.rows).toHaveCount(2);
  await page.reload();
  await expect(history.rows).toHaveCount(2);
  await expect(history.branch).toHaveValue('other');
  await dialog.hydrated();
  await history.status.selectOption({ label: 'In Progress' });
  await expect(history.rows).toHaveCount(0);

  await api.pauseQueue(true);
  const { id } = await api.start(service.id, 'other', await service.repo.head('other'));
  await page.reload();
  await expect(history.rows, 'In Progress includes what is queued').toHaveCount(1);
  await api.cancel(id);
  await api.pauseQueue(false);
});

test('pages go by number and stay where they are when builds come', async ({ register, dialog, api, page }) => {
  const service = await register();
  await cancelled(api, service, Array.from({ length: 60 }, () => 'main'));
  await dialog.openHistory(service.id);
  const { history } = dialog;
  const numbers = async () => (await history.rows.allInnerTexts()).map((row) => Number(row.match(/#(\d+)/)?.[1]));
  await expect(history.row(60)).toBeVisible();
  const first = await numbers();
  expect(first).toEqual(Array.from({ length: first.length }, (_, i) => 60 - i));
  expect(first.length).toBeLessThan(60);
  await expect(history.newer).toBeDisabled();

  await history.older.click();
  await expect(history.row(60 - first.length)).toBeVisible();
  const second = await numbers();
  expect(second[0]).toBe(60 - first.length);
  await cancelled(api, service, ['main', 'main']);
  await page.reload();
  await expect(history.row(60 - first.length)).toBeVisible();
  expect(await numbers(), 'a page holds what it held').toEqual(second);

  const seen = [...first, ...second];
  while (await history.older.isEnabled()) {
    await history.older.click();
    await expect(history.row((seen.at(-1) ?? 0) - 1)).toBeVisible();
    seen.push(...(await numbers()));
  }
  expect(seen).toEqual(Array.from({ length: 60 }, (_, i) => 60 - i));
  await history.newer.click();
  await expect(history.older).toBeEnabled();
});

test('what runs tells how it stands without being asked, and keeps the focus where it is', async ({
  register,
  dialog,
  api,
  page,
}) => {
  const service = await register(ENDLESS);
  const { id } = await api.start(service.id);
  await dialog.openHistory(service.id);
  const row = dialog.history.row(1);
  await expect(row).toContainText('In Progress');
  await expect(row).toContainText(/\d:(0[2-9]|[1-5]\d)/);
  await row.getByRole('link', { name: '#1' }).focus();
  await api.cancel(id);
  await expect(row).toContainText('Cancelled');
  await expect(row.getByRole('button', { name: 'Rebuild' })).toBeVisible();
  await expect(row.getByRole('link', { name: '#1' })).toBeFocused();

  // Nobody asks about what is over.
  const asked = page.waitForRequest(/get_history/, { timeout: 4_000 }).catch(() => null);
  expect(await asked).toBeNull();
});

test('the way back shows the filters that belong to the address', async ({ register, dialog, api, page }) => {
  const service = await register();
  await service.repo.branch('other', 'main');
  await cancelled(api, service, ['main', 'other']);
  await dialog.openHistory(service.id);
  const { history } = dialog;
  await expect(history.branch.locator('option')).toHaveCount(3);
  await history.branch.selectOption('other');
  await expect(history.rows).toHaveCount(1);
  await history.status.selectOption({ label: 'Success' });
  await expect(history.rows).toHaveCount(0);
  await page.goBack();
  await expect(history.rows).toHaveCount(1);
  await expect(history.status).toHaveValue('');
  await expect(history.branch).toHaveValue('other');
  await page.goBack();
  await expect(history.rows).toHaveCount(2);
  await expect(history.branch).toHaveValue('');
  await page.goForward();
  await expect(history.branch).toHaveValue('other');
});

// The form that starts builds: what is chosen is what is built, and what stands in the way is said before.

import { ADMIN, Server } from '../fixtures/server';
import { Api } from '../fixtures/api';
import { QUICK } from '../fixtures/sources';
import { expect, newService, test } from '../fixtures/test';
import { BuildDialog } from '../pages/build-dialog';
import { ServicePage } from '../pages/service';
import { SignInPage } from '../pages/sign-in';

const OTHER = { ...QUICK, 'words.txt': 'plum\n' };

test('a mistyped branch is said at its field and never becomes another one', async ({ register, dialog, page, api }) => {
  const service = await register();
  await service.repo.commit('maintenance', OTHER, 'Maintain');
  const main = await service.repo.head('main');
  await dialog.openRun(service.id);
  const { run } = dialog;
  await expect(dialog.root).toContainText(main.slice(0, 7));
  for (const leave of ['Tab', 'Enter']) {
    await run.branch.fill('mian');
    await expect(dialog.root.getByRole('status').filter({ hasText: 'No branch has this name' })).toBeVisible();
    await page.keyboard.press(leave);
    await expect(run.branch).toHaveValue('mian');
    await expect(run.branch).toHaveAttribute('aria-invalid', 'true');
    await expect(run.branch).toHaveAccessibleDescription(/No branch has this name/);
  }
  await run.start.click();
  await expect(run.branch, 'what is wrong has the focus').toBeFocused();
  expect(await api.builds(service.id)).toHaveLength(0);

  // The beginning of a name is no name; the whole one is, although another begins with it.
  await run.branch.fill('mai');
  await page.keyboard.press('Tab');
  await expect(run.branch).toHaveAttribute('aria-invalid', 'true');
  await run.branch.fill('');
  await page.keyboard.press('Tab');
  await expect(run.branch).toHaveAccessibleDescription(/needed/);
  await run.branch.fill('main');
  await page.keyboard.press('Enter');
  await expect(run.branch).not.toHaveAttribute('aria-invalid');
  await expect(run.branch).toHaveValue('main');
  await run.start.click();
  await dialog.build.toBe('Success');
  expect(await api.builds(service.id)).toMatchObject([{ branch: 'main', commit: main }]);
});

test('a tag that is named like a branch can be chosen', async ({ register, dialog, api }) => {
  const service = await register();
  const released = await service.repo.head('main');
  await service.repo.tag('v1', released);
  const maintained = await service.repo.commit('v1', OTHER, 'Mend version 1');
  await dialog.openRun(service.id);
  const { run } = dialog;
  for (const [option, branch, commit] of [
    [run.options.filter({ hasText: released.slice(0, 7) }).filter({ hasText: 'tag' }), 'refs/tags/v1', released],
    [run.options.filter({ hasText: maintained.slice(0, 7) }), 'v1', maintained],
  ] as const) {
    await run.unfold();
    await run.branch.fill('v1');
    await expect(run.options).toHaveCount(2);
    await option.click();
    await expect(run.branch).toHaveValue('v1');
    await expect(dialog.root).toContainText(commit.slice(0, 7));
    const before = (await api.builds(service.id)).length;
    await run.start.click();
    await expect.poll(async () => (await api.builds(service.id)).length).toBe(before + 1);
    expect((await api.builds(service.id))[0]).toMatchObject({ branch, commit });
    await expect(run.start, 'the form folds').toBeHidden();
  }
});

test('while the branches are on their way, what was typed is sent as it is', async ({ register, dialog, page, api, rig }) => {
  const service = await register();
  const commit = await service.repo.commit('other', OTHER, 'Plums');
  await rig.breakGit({ hang: true });
  try {
    await dialog.openRun(service.id);
    await expect(dialog.root).toContainText('Loading branches');
    await dialog.run.branch.fill('other');
    await page.keyboard.press('Tab');
    await expect(dialog.run.branch).toHaveValue('other');
    await expect(dialog.run.branch).not.toHaveAttribute('aria-invalid');
  } finally {
    await rig.mendGit();
  }
  await dialog.run.start.click();
  await dialog.build.toBe('Success');
  expect((await api.builds(service.id))[0]).toMatchObject({ branch: 'other', commit });
});

test('another build is of what the branch holds by then', async ({ register, dialog, page, api }) => {
  const service = await register();
  await dialog.openRun(service.id);
  const { run, build } = dialog;
  await run.start.click();
  await expect(page.locator('#run-view'), 'what one wants to hear next has the focus').toBeFocused();
  await build.toBe('Success');
  await expect(run.start, 'the form is folded').toBeHidden();

  const newer = await service.repo.commit('main', OTHER, 'Plums');
  await run.unfold();
  await expect(dialog.root.locator('.combo-detail')).toContainText(newer.slice(0, 7));
  await run.start.click();
  await expect(build.what).toContainText('#2');
  await expect(run.start, 'the form is folded again').toBeHidden();
  await build.toBe('Success');
  expect((await api.builds(service.id))[0]).toMatchObject({ number: 2, commit: newer });

  // Whoever looks at the choices sees them as they are.
  await run.unfold();
  const newest = await service.repo.commit('main', { ...QUICK, 'words.txt': 'quince\n' }, 'Quinces');
  await run.commit.focus();
  await run.branch.focus();
  await expect(dialog.root.locator('.combo-detail')).toContainText(newest.slice(0, 7));
});

test('branches that could not be read are read again by a button', async ({ register, dialog, rig }) => {
  const service = await register();
  await rig.breakGit({ status: 500 });
  try {
    await dialog.openRun(service.id);
    await expect(dialog.root.getByText('127.0.0.1 does not answer')).toBeVisible();
  } finally {
    await rig.mendGit();
  }
  await dialog.root.getByRole('button', { name: 'Try again' }).click();
  await expect(dialog.root.getByText('127.0.0.1 does not answer')).toBeHidden();
  await expect(dialog.root).toContainText((await service.repo.head('main')).slice(0, 7));
});

test('a paused queue is said before the start, and is why a build waits', async ({ register, dialog, api }) => {
  const service = await register();
  await api.pauseQueue(true);
  try {
    await dialog.openRun(service.id);
    await expect(dialog.root.getByText('The queue is paused')).toBeVisible();
    await dialog.run.start.click();
    await expect(dialog.build.status).toHaveText(/Queued/);
    await expect(dialog.build.root.locator('.live')).toContainText('the queue is paused');
  } finally {
    await api.pauseQueue(false);
  }
  await dialog.build.toBe('Success');
});

test('a disk that is nearly full is said where builds are started', async ({ rig, browser, unique }) => {
  const server = await Server.start(rig, { password: ADMIN.password, env: { KIOPS_MIN_FREE_BYTES: `${2 ** 50}` } });
  const context = await browser.newContext({ baseURL: server.url });
  try {
    const api = await Api.signIn(server.url, ADMIN);
    const id = await api.register(newService(rig, unique, await rig.repo(unique, QUICK)));
    const page = await context.newPage();
    const signIn = new SignInPage(page);
    await signIn.open();
    await signIn.signIn(ADMIN);
    await page.waitForURL('**/services');
    const said = /has only \d.*iB of disk left and needs 1024 TiB/;
    await new ServicePage(page).open(id);
    await expect(page.getByText(said)).toBeVisible();
    const dialog = new BuildDialog(page);
    await dialog.openRun(id);
    await expect(dialog.root.getByText(said)).toBeVisible();
    await dialog.run.start.click();
    await expect(dialog.root.getByRole('alert').filter({ hasText: said })).toBeVisible();
  } finally {
    await context.close();
    await server.stop();
  }
});

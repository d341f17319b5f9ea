// Pages before their program has loaded: forms are forms, links are links, and the server writes the data.

import { QUICK } from '../fixtures/sources';
import { Rig } from '../fixtures/rig';
import { ADMIN, NOBODY, expect, test } from '../fixtures/test';

test.use({ javaScriptEnabled: false });

test.describe('signed out', () => {
  test.use({ storageState: NOBODY });

  test('sign in, wrong and right', async ({ page, signIn, register }) => {
    const service = await register();
    await page.goto(`/services/edit/${service.id}`);
    await expect(page).toHaveURL(/\/sign-in/);
    await signIn.signIn({ ...ADMIN, password: 'wrong-password' });
    await expect(page.getByRole('alert').filter({ hasText: 'User or password is wrong' })).toBeVisible();
    await expect(signIn.user).toHaveValue(ADMIN.user);
    expect(page.url()).not.toContain('wrong-password');
    await signIn.signIn(ADMIN);
    await expect(page.getByRole('heading', { name: service.name, level: 1 })).toBeVisible();
  });
});

test('register, save, start, and find it in the history', async ({ page, services, dialog, rig, unique, api }) => {
  test.slow();
  const repo = await rig.repo(unique, QUICK);
  await page.goto('/services');
  await services.add.click();
  const form = {
    name: unique,
    url: repo.url,
    token: Rig.gitToken,
    registry: rig.addresses.registry,
    image: 'Not Legal',
    user: Rig.registryUser,
    password: Rig.registryPassword,
  };
  await services.addDialog.fill(form);
  await services.addDialog.register.click();
  await expect(services.addDialog.imageName).toHaveAttribute('aria-invalid', 'true');
  await expect(services.addDialog.url).toHaveValue(form.url);
  expect(page.url()).not.toContain(Rig.gitToken);
  expect(page.url()).not.toContain(Rig.registryPassword);
  await services.addDialog.fill({ ...form, image: unique });
  await services.addDialog.register.click();
  await expect(page.getByRole('heading', { name: unique, level: 1 })).toBeVisible();

  await page.getByRole('button', { name: 'Build', exact: true }).click();
  await dialog.settings.specifyPath.check();
  await dialog.settings.path.fill('../Dockerfile');
  await dialog.settings.save.click();
  await expect(dialog.settings.path).toHaveAttribute('aria-invalid', 'true');
  await dialog.settings.path.fill('./Dockerfile');
  await dialog.settings.profile.selectOption('small');
  await dialog.settings.save.click();
  await expect(dialog.settings.message('Build settings saved')).toBeVisible();
  await expect(dialog.settings.profile).toHaveValue('small');

  await dialog.tab('Run').click();
  await dialog.run.start.click();
  await expect(dialog.build.status).toHaveText(/Queued|In Progress|Success/);
  const service = new URL(page.url()).pathname.split('/').at(-1) ?? '';
  const [started] = await api.builds(service);
  await api.finished(started?.id ?? '');
  await page.reload();
  await dialog.build.toBe('Success');
  await expect(dialog.build.log.log).toContainText('all is well');
  await expect(dialog.build.step('RUN sort').root).toBeVisible();
  await dialog.tab('Build History').click();
  await expect(dialog.history.row(1)).toContainText('Success');
});

test('another branch than the default one is typed, and a wrong one is said at its field', async ({
  register,
  dialog,
  page,
  api,
}) => {
  const service = await register();
  const commit = await service.repo.commit('other', { ...QUICK, 'words.txt': 'fig\n' }, 'Figs');
  await page.goto(`/services/edit/${service.id}?build=run`);
  const { run } = dialog;
  await expect(run.branch).toHaveValue('main');
  await run.branch.fill('otter');
  await run.start.click();
  await expect(run.branch).toHaveAttribute('aria-invalid', 'true');
  await expect(run.branch).toHaveAccessibleDescription(/no branch or tag otter/);
  await expect(run.branch).toHaveValue('otter');
  await expect(run.branch, 'what is wrong has the focus').toBeFocused();
  expect(await api.builds(service.id)).toHaveLength(0);
  await run.branch.fill('other');
  await run.start.click();
  await expect(dialog.build.what).toContainText('other');
  expect((await api.builds(service.id))[0]).toMatchObject({ branch: 'other', commit });
});

test('the server writes what pages show', async ({ page, register, api }) => {
  const service = await register();
  const build = await api.run(service.id);
  const written = async (path: string) => (await page.request.get(path)).text();
  expect(await written('/services')).toContain(service.name);
  expect(await written(`/services/edit/${service.id}`)).toContain(build.image_tag);
  expect(await written(`/services/edit/${service.id}?build=history`)).toContain(build.commit.slice(0, 7));
  expect(await written(`/services/edit/${service.id}?build=run`)).toContain('main');
  expect(await written(`/services/edit/${service.id}?build=run&id=${build.id}`)).toContain('all is well');
});

test('pages that are not there say so with the right status', async ({ page }) => {
  for (const path of ['/nothing-here', '/services/edit/no-id', '/services/edit/svc-aaaaaaaaaaaaaaaaaaaa']) {
    const answer = await page.goto(path);
    expect(answer?.status(), path).toBe(404);
    await expect(page.getByRole('link', { name: /Service Management/ }).first()).toBeVisible();
  }
});

// Pages before their program has loaded: forms are forms, links are links, and the server writes the data.

import { QUICK } from '../fixtures/sources';
import { Rig } from '../fixtures/rig';
import { ADMIN, NOBODY, expect, test } from '../fixtures/test';

test('register, save, start, and find it in the history', async ({ page, services, dialog, rig, unique, api }) => {
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

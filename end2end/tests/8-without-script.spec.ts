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

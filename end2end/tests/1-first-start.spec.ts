// Starting for the first time, signing in and out.

import { ADMIN, NOBODY, expect, test } from '../fixtures/test';
import { Server } from '../fixtures/server';
import { SignInPage } from '../pages/sign-in';

test.use({ storageState: NOBODY });

test('the one-time link sets the password, once', { tag: '@shipped' }, async ({ rig, browser }) => {
  const server = await Server.start(rig);
  const context = await browser.newContext({ baseURL: server.url });
  try {
    const link = server.log.match(/http:\/\/127\.0\.0\.1:\d+\/\S*/)?.[0];
    expect(link, server.log).toContain(server.url);
    const page = await context.newPage();
    const door = new SignInPage(page);

    await page.goto(link ?? '');
    await expect(page.getByRole('heading', { name: 'Set your password' })).toBeVisible();
    await door.hydrated();
    await door.choosePassword('a-long-password', 'another-password');
    await expect(door.repeatPassword).toHaveAccessibleDescription(/not the same/);
    await expect(page).toHaveURL(link ?? '');
    await door.choosePassword('a-long-password');
    await expect(page.getByRole('heading', { name: 'Service Management' })).toBeVisible();
    await expect(page).toHaveURL(/\/services$/);

    await page.goto(link ?? '');
    await expect(door.newPassword).toBeHidden();
    await expect(page.getByText(/has been used/)).toBeVisible();

    await context.clearCookies();
    await door.open();
    await door.signIn({ user: ADMIN.user, password: 'a-long-password' });
    await expect(page).toHaveURL(/\/services$/);
  } finally {
    await context.close();
    await server.stop();
  }
});

test('a wrong password is said and nothing else', async ({ signIn, page }) => {
  await signIn.open();
  for (const wrong of [
    { user: ADMIN.user, password: 'wrong-password' },
    { user: 'nobody', password: ADMIN.password },
  ]) {
    await signIn.signIn(wrong);
    await expect(page.getByRole('alert').filter({ hasText: 'User or password is wrong' })).toBeVisible();
    await expect(signIn.user).toHaveValue(wrong.user);
  }
  await expect(page).toHaveURL(/\/sign-in/);
});

test('a page asks for a sign-in and comes back', async ({ signIn, page, register }) => {
  const service = await register();
  const wanted = `/services/edit/${service.id}?build=history`;
  await page.goto(wanted);
  await expect(page).toHaveURL(/\/sign-in/);
  await signIn.hydrated();
  await signIn.signIn(ADMIN);
  await expect(page).toHaveURL(wanted);
  await expect(page.getByRole('dialog', { name: 'Build', exact: true })).toBeVisible();
});

test('signing out ends the session', async ({ signIn, services, page }) => {
  await signIn.open();
  await signIn.signIn(ADMIN);
  await expect(services.heading).toBeVisible();
  const session = await page.context().cookies();
  await services.signOut();
  await expect(signIn.button).toBeVisible();
  await page.context().addCookies(session);
  await page.goto('/services');
  await expect(page, 'the old cookie is of no use').toHaveURL(/\/sign-in/);
});

test('the session cookie is out of reach for scripts and other sites', async ({ signIn, page }) => {
  await signIn.open();
  await signIn.signIn(ADMIN);
  await expect(page).toHaveURL(/\/services$/);
  const [session] = (await page.context().cookies()).filter(({ httpOnly }) => httpOnly);
  expect(session).toMatchObject({ httpOnly: true, sameSite: expect.stringMatching(/Lax|Strict/) });
});

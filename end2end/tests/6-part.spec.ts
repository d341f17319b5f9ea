// What there is of one service is a part of the page's program that comes by itself: it is there before it is wanted, and
// a network that fails just then costs a moment and nothing else.

import { NOBODY, expect, test } from '../fixtures/test';
import { AnyScreen } from '../pages/frame';

const PART = '**/pkg/split_service.*.wasm';
const UNREACHABLE = 'The server cannot be reached';
const OUTDATED = 'This page is out of date';

test('signing in does without it, the list has it ready', { tag: '@shipped' }, async ({ browser, baseURL, page, register, services, servicePage }) => {
  const { id, name } = await register();
  const asked: string[] = [];
  const nobody = await browser.newPage({ baseURL: baseURL!, storageState: NOBODY });
  nobody.on('request', (request) => asked.push(request.url()));
  await new AnyScreen(nobody).open('/sign-in');
  await nobody.close();
  expect(asked.filter((url) => url.includes('/pkg/split_'))).toEqual([]);
  expect(asked.filter((url) => url.includes('.wasm'))).toHaveLength(1);

  const loaded = page.waitForResponse(PART);
  await services.open();
  await (await loaded).finished();
  await page.route(PART, (route) => route.abort());
  await services.card(name).click();
  await expect(servicePage.heading(name)).toBeVisible();
  expect(page.url()).toContain(id);
});

test('a service opens once the server can be reached', async ({ page, register, services, servicePage }) => {
  const { name } = await register();
  const calls = '**/api/fn/**';
  for (const all of [PART, calls]) await page.route(all, (route) => route.abort());
  await services.open();
  await services.card(name).click();
  await expect(page.getByText(UNREACHABLE)).toBeVisible();
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(page.getByText(UNREACHABLE)).toBeVisible();
  for (const all of [PART, calls]) await page.unroute(all);
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(servicePage.heading(name)).toBeVisible();
  await expect(page.getByText(UNREACHABLE)).toBeHidden();
});

test('a server with another program asks for a reload, on a page and in a dialog', async ({ page, register, services, servicePage }) => {
  const { name } = await register();
  await page.route(PART, (route) => route.fulfill({ status: 404 }));
  await services.open();
  await services.card(name).click();
  await expect(page.getByText(OUTDATED)).toBeVisible();
  await page.goBack();
  await services.add.click();
  await expect(services.addDialog.root).toContainText(OUTDATED);
  await page.unroute(PART);
  await services.addDialog.root.getByRole('button', { name: 'Reload' }).click();
  await expect(services.addDialog.register).toBeVisible();
  await services.open();
  await services.card(name).click();
  await expect(servicePage.heading(name)).toBeVisible();
});

test('a page that needs it works plainly until it has come', async ({ page, register, dialog }) => {
  const { id } = await register();
  await page.route(PART, (route) => route.abort());
  await page.goto(`/services/edit/${id}?build=settings`);
  await dialog.tab('Help').click();
  await expect(dialog.tab('Help')).toHaveAttribute('aria-selected', 'true');
  await expect(page.locator('[data-hydrated]')).toHaveCount(0);
  await page.unroute(PART);
  await dialog.hydrated();
  await dialog.tab('Run').click();
  await expect(dialog.run.start).toBeEnabled();
});

test('the server names the part together with the page', async ({ page, register }) => {
  const { id } = await register();
  const link = async (path: string) => (await page.request.get(path)).headers()['link'] ?? '';
  expect(await link(`/services/edit/${id}`)).toMatch(/^<\/pkg\/split_service\.[0-9a-f]+\.wasm>; rel=preload; as=fetch; crossorigin$/);
  expect(await link('/services?add=1')).toContain('/pkg/split_service.');
  expect(await link('/services')).toBe('');
});

// Registering a service.

import { Rig } from '../fixtures/rig';
import { QUICK } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';
import type { ServiceForm } from '../pages/add-service';

test.describe('Add service', () => {
  let form: ServiceForm;

  test.beforeEach(async ({ rig, unique, services }) => {
    const repo = await rig.repo(unique, QUICK);
    await repo.branch('other', 'main');
    form = {
      name: unique,
      url: repo.url,
      token: Rig.gitToken,
      registry: rig.addresses.registry,
      image: unique,
      user: Rig.registryUser,
      password: Rig.registryPassword,
    };
    await services.open();
    await services.add.click();
    await expect(services.addDialog.root).toBeVisible();
  });

  test('from Add to the card', { tag: '@shipped' }, async ({ services, servicePage, page }) => {
    const dialog = services.addDialog;
    await dialog.fill(form);
    await dialog.checkRepository.click();
    await expect(dialog.defaultBranch).toHaveValue('main');
    await expect(dialog.root.getByText(/branches: 2/)).toBeVisible();
    await dialog.testConnection.click();
    await expect(dialog.root.getByText('Reached, with the right to push.')).toBeVisible();
    await dialog.register.click();
    await expect(servicePage.heading(form.name)).toBeVisible();
    await expect(page.getByText(`${form.registry}/e2e/${form.image}`)).toBeVisible();

    await services.open();
    await expect(services.card(form.name)).toBeVisible();
    await services.search.fill(form.name.toUpperCase());
    await expect(services.card(form.name)).toBeVisible();
    await services.search.fill('no such service');
    await expect(services.card(form.name)).toBeHidden();
    await services.search.fill('');
    await services.card(form.name).click();
    await expect(servicePage.heading(form.name)).toBeVisible();
  });

  test('neither token nor password ever comes back', async ({ services, servicePage, page }) => {
    const seen: Promise<string>[] = [];
    page.on('response', (response) => {
      const streams = response.headers()['content-type']?.includes('event-stream');
      if (!streams) seen.push(response.text().catch(() => ''));
    });
    const dialog = services.addDialog;
    await dialog.fill(form);
    await dialog.checkRepository.click();
    await expect(dialog.defaultBranch).toHaveValue('main');
    await dialog.register.click();
    await expect(servicePage.heading(form.name)).toBeVisible();
    await page.reload();
    await servicePage.registrySettings.first().click();
    await expect(page.getByLabel('Registry password')).toHaveValue('');
    await page.reload();
    await expect(page.getByLabel('Registry password')).toHaveValue('');

    const everything = [...(await Promise.all(seen)), await page.content(), page.url()].join('\n');
    expect(everything, 'the replies were seen').toContain(form.image);
    for (const secret of [form.token, form.password]) {
      expect(everything).not.toContain(secret);
      expect(everything).not.toContain(Buffer.from(secret).toString('base64').replaceAll('=', ''));
    }
  });

  // Each is said at its input, and everything that was typed is still there.
  for (const bad of [
    {
      what: 'an address where nobody answers',
      change: { url: 'http://127.0.0.1:9/nothing.git' },
      field: 'Repository URL',
      says: /does not answer/,
    },
    {
      what: 'an address of something else than Git',
      change: { url: (rig: Rig) => `http://${rig.addresses.mirror}/v2/` },
      field: 'Repository URL',
      says: /repository/i,
    },
    { what: 'an address with another scheme', change: { url: 'file:///etc' }, field: 'Repository URL', says: /https:\/\// },
    { what: 'a wrong token', change: { token: 'not-the-token' }, field: 'Access token', says: /refused the token/ },
    { what: 'an image name in capitals', change: { image: 'Orders' }, field: 'Image name', says: /lower-case/ },
    { what: 'no name', change: { name: ' ' }, field: 'Service name', says: /needed/ },
    { what: 'a short password', change: { password: 'short' }, field: 'Registry password', says: /At least 6/ },
  ] as const) {
    test(`${bad.what} is said at its input`, async ({ rig, services, page }) => {
      const change = Object.fromEntries(
        Object.entries(bad.change).map(([name, value]) => [name, typeof value === 'function' ? value(rig) : value]),
      );
      const filled = { ...form, ...change };
      const dialog = services.addDialog;
      await dialog.fill(filled);
      await dialog.register.click();
      const input = dialog.root.getByLabel(bad.field);
      await expect(input).toHaveAttribute('aria-invalid', 'true');
      await expect(input).toHaveAccessibleDescription(bad.says);
      await expect(dialog.name).toHaveValue(filled.name);
      await expect(dialog.url).toHaveValue(filled.url);
      await expect(dialog.registryUrl).toHaveValue(filled.registry);
      await expect(dialog.imageName).toHaveValue(filled.image);
      await expect(dialog.registryPassword).toHaveValue(filled.password);
      await expect(page).toHaveURL(/\/services\?add/);
    });
  }

  test('Check repository and Test connection say what is wrong', async ({ services }) => {
    const dialog = services.addDialog;
    await dialog.fill({ ...form, token: 'not-the-token', password: 'not-the-password' });
    await dialog.checkRepository.click();
    await expect(dialog.root.getByText(/refused the token/)).toBeVisible();
    await dialog.testConnection.click();
    await expect(dialog.root.getByText(/refused user name or password/)).toBeVisible();
  });

  test('each kind of registry has its own fields', async ({ services }) => {
    const { root, kind, path, plainHttp } = services.addDialog;
    await services.addDialog.kind('Harbor (recommended)').check();
    await expect(root.getByLabel('Project')).toBeVisible();
    await expect(path).toBeHidden();
    await kind.call(services.addDialog, 'Docker Hub').check();
    await expect(root.getByLabel('Namespace')).toBeVisible();
    await expect(root.getByLabel('Registry URL')).toBeHidden();
    await kind.call(services.addDialog, 'Private Docker Registry').check();
    await expect(path).toBeVisible();
    await expect(plainHttp).toBeVisible();
    await expect(root.getByLabel('Project')).toBeHidden();
  });
});

test('nothing of what is to come can be chosen', async ({ services }) => {
  await services.open();
  await services.add.click();
  for (const later of ['GitLab', 'GitHub', 'Docker Hub image']) {
    await expect(services.addDialog.root.getByRole('radio', { name: later, exact: true })).toBeDisabled();
  }
});

// Builds that fail, and what is said about them.

import { FAILING, QUICK } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';

for (const { what, files, settings, says } of [
  { what: 'no Dockerfile', files: { 'readme.md': 'nothing to build\n' }, settings: {}, says: /Dockerfile was not found/ },
  {
    what: 'a Dockerfile in the wrong case',
    files: { dockerfile: QUICK.Dockerfile ?? '' },
    settings: {},
    says: /exactly Dockerfile/,
  },
  {
    what: 'a path that is not there',
    files: QUICK,
    settings: { dockerfile: { mode: 'path', path: 'docker/Dockerfile.prod' } },
    says: /docker\/Dockerfile\.prod/,
  },
  {
    what: 'a Dockerfile that is none',
    files: { Dockerfile: 'FROM busybox:1\nRUNN echo hello\n' },
    settings: {},
    says: /RUNN|line 2/i,
  },
  {
    what: 'a file to copy that is not there',
    files: { Dockerfile: 'FROM busybox:1\nCOPY package.json .\n' },
    settings: {},
    says: /package\.json/,
  },
]) {
  test(`${what} is said in a sentence`, async ({ register, dialog }) => {
    const service = await register(files, { settings });
    await dialog.openRun(service.id);
    await dialog.run.start.click();
    await dialog.build.toBe('Failure');
    await expect(dialog.build.explanation).toContainText(says);
  });
}

test('a Git host that refuses leads to the source’s settings', async ({ register, dialog, rig }) => {
  const service = await register();
  await dialog.openRun(service.id);
  // Before the branches have come, the host is asked at the start, and the form says that it refuses.
  await expect(dialog.root).toContainText('First commit');
  await rig.breakGit({ status: 401 });
  try {
    await dialog.run.start.click();
    await dialog.build.toBe('Failure');
  } finally {
    await rig.mendGit();
  }
  await expect(dialog.build.explanation).toContainText(/token/i);
});

test('a failing step: what, why, and the line that shows it', async ({ register, dialog, api }) => {
  const service = await register(FAILING);
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { build } = dialog;
  await build.toBe('Failure');

  await expect(build.step('exit 3').marker('ERROR')).toBeVisible();
  await expect(build.step('RUN echo before').marker('DONE')).toBeVisible();
  // Every first build's: it is no fault of this one.
  await expect(build.step('importing cache manifest').root).toContainText('The build goes on without it.');
  await expect(build.explanation).toContainText(/3/);
  await expect(build.explanation).toContainText('the cake is a lie');
  await expect(build.fact('Image Tag')).toBeHidden();
  await expect(build.root.getByRole('status').filter({ hasText: /failed/i })).toBeAttached();

  await build.log.log.evaluate((log) => log.scrollTo(0, 0));
  await build.log.firstError.click();
  await expect(build.log.log.getByText(/ERROR: process/)).toBeInViewport();
  const [stored] = await api.builds(service.id);
  expect(await api.build(stored?.id ?? '')).toMatchObject({
    status: 'failure',
    image_tag: null,
    diagnosis: {
      code: expect.any(String),
      evidence: expect.arrayContaining([expect.objectContaining({ text: expect.stringContaining('cake') })]),
    },
  });
});

test('a registry that is down', async ({ register, dialog, rig }) => {
  const service = await register();
  await dialog.openRun(service.id);
  await rig.stopRegistry();
  try {
    await dialog.run.start.click();
    await dialog.build.toBe('Failure');
  } finally {
    await rig.startRegistry();
  }
  await expect(dialog.build.explanation).toContainText('A connection was refused');
  await expect(dialog.build.explanation).toContainText(`failed to push ${rig.addresses.registry}`);
});

test('a push that is forbidden leads to the registry’s settings', async ({ register, dialog, rig, page }) => {
  const service = await register(QUICK, { registry: rig.addresses.faulty_registry });
  await dialog.openRun(service.id);
  await rig.breakRegistry('pushes', { status: 403 });
  try {
    await dialog.run.start.click();
    await dialog.build.toBe('Failure');
  } finally {
    await rig.mendRegistry();
  }
  await expect(dialog.build.explanation).toContainText(/does not allow the push/);
  await dialog.build.explanation.getByRole('link', { name: 'Registry Settings' }).click();
  await expect(page.getByRole('dialog', { name: 'Registry Settings' })).toBeVisible();
});

test('a wrong registry password', async ({ register, dialog }) => {
  const service = await register(QUICK, { password: 'not-the-password' });
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  await dialog.build.toBe('Failure');
  await expect(dialog.build.explanation).toContainText('The registry refused the login');
});

test('branches that cannot be read are said, and read again with the page', async ({ register, dialog, rig }) => {
  const service = await register();
  await rig.breakGit({ status: 500 });
  try {
    await dialog.openRun(service.id);
    await expect(dialog.root.getByText('127.0.0.1 does not answer')).toBeVisible();
    await expect(dialog.run.start, 'the default branch can be built all the same').toBeEnabled();
  } finally {
    await rig.mendGit();
  }
  await dialog.openRun(service.id);
  await dialog.run.branch.click();
  await expect(dialog.run.options.first()).toContainText((await service.repo.head('main')).slice(0, 7));
});

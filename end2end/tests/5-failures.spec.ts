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
  await rig.breakGit({ status: 401 });
  try {
    await dialog.run.start.click();
    await dialog.build.toBe('Failure');
  } finally {
    await rig.mendGit();
  }
  await expect(dialog.build.explanation).toContainText(/token/i);
});

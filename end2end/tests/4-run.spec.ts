// Running a build: choosing the branch, starting, watching, the result.

import { ENDLESS, QUICK, ticking } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';

test('branches and tags, the default one first, each with its head', async ({ register, dialog }) => {
  const service = await register();
  const main = await service.repo.head('main');
  await service.repo.branch('aaa/first-by-name', 'main');
  const newer = await service.repo.commit('feature/pay', { 'words.txt': 'plum\n' }, 'Pay with plums');
  await service.repo.tag('v1.0', main);

  await dialog.openRun(service.id);
  const { run } = dialog;
  await expect(run.branch).toHaveValue('main');
  await expect(dialog.root).toContainText(main.slice(0, 7));
  await run.branch.click();
  await expect(run.options).toHaveCount(4);
  await expect(run.options.nth(0)).toContainText('main');
  await expect(run.options.nth(0)).toContainText(main.slice(0, 7));
  await expect(run.options.filter({ hasText: 'feature/pay' })).toContainText(newer.slice(0, 7));
  await expect(run.options.last()).toContainText('v1.0');
  await run.branch.fill('PAY');
  await expect(run.options).toHaveCount(1);
  await expect(run.options).toContainText('feature/pay');
});

test('from the click to the image', { tag: '@shipped' }, async ({ register, dialog, page, api, rig }) => {
  const service = await register(ticking(150));
  const commit = await service.repo.head('main');
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { build } = dialog;

  await expect(build.status).toHaveText(/Queued|In Progress/);
  await expect.poll(() => build.log.lastTick()).toBeGreaterThan(2);
  await expect(build.status).toHaveText(/In Progress/);
  await expect(build.step('RUN i=0').marker('running')).toBeVisible();
  await expect(build.cancel).toBeVisible();
  await expect(build.log.log).toContainText('tick 150 of 150');
  await build.toBe('Success');
  await expect(build.cancel).toBeHidden();

  const tag = `${rig.addresses.registry}/${service.image}:main-1-${commit.slice(0, 7)}`;
  await expect(build.fact('Image Tag')).toContainText(tag);
  const manifest = await rig.manifest(service.image, `main-1-${commit.slice(0, 7)}`);
  if (!manifest) throw new Error('the registry has no such image');
  await expect(build.fact('Digest')).toContainText(manifest.digest);
  await expect(build.fact('Image Size')).toContainText(/\d kB|\d MB/);
  await expect(build.fact('Build Duration')).toContainText(/\d+\.\d s/);
  const repository = tag.slice(0, tag.lastIndexOf(':'));
  await expect(build.fact('Pull')).toContainText(`docker pull ${repository}@${manifest.digest}`);

  const stored = (await api.builds(service.id))[0];
  expect(stored).toMatchObject({ number: 1, status: 'success', commit, image_tag: tag, digest: manifest.digest });
  const { config, layers } = manifest.body;
  expect(stored?.image_size_bytes).toBe([config, ...layers].reduce((sum, { size }) => sum + size, 0));

  await build.root.getByRole('button', { name: 'Copy image tag' }).click();
  await expect(build.root.getByText('Copied')).toBeAttached();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(tag);
});

test('a double click on Start Build is one build', async ({ register, dialog, api }) => {
  const service = await register();
  await dialog.openRun(service.id);
  await dialog.run.start.dblclick();
  await dialog.build.toBe('Success');
  expect(await api.builds(service.id)).toHaveLength(1);
});

test('a tag is built like a branch', async ({ register, dialog, api }) => {
  const service = await register();
  const released = await service.repo.head('main');
  await service.repo.tag('v2.0', released);
  await service.repo.commit('main', { 'words.txt': 'later\n' }, 'After the release');
  await dialog.openRun(service.id);
  await dialog.run.choose('v2.0');
  await dialog.run.start.click();
  await dialog.build.toBe('Success');
  await expect(dialog.build.fact('Image Tag')).toContainText(`:v2.0-1-${released.slice(0, 7)}`);
  expect((await api.builds(service.id))[0]).toMatchObject({ commit: released, branch: 'refs/tags/v2.0' });
});

test('a commit of one’s own wins over the head', async ({ register, dialog, api }) => {
  const service = await register();
  const first = await service.repo.head('main');
  await service.repo.commit('main', { 'words.txt': 'newer\n' }, 'Newer');
  await dialog.openRun(service.id);
  await dialog.run.commit.fill('not a commit');
  await dialog.run.start.click();
  await expect(dialog.run.commit).toHaveAccessibleDescription(/40 letters/);
  await dialog.run.commit.fill(first);
  await dialog.run.start.click();
  await dialog.build.toBe('Success');
  expect((await api.builds(service.id))[0]).toMatchObject({ commit: first });
});

test('a branch that vanished after the click is a failure that says so', async ({ register, dialog, api }) => {
  const service = await register();
  await service.repo.commit('short-lived', { 'words.txt': 'gone\n' }, 'Soon gone');
  await dialog.openRun(service.id);
  await dialog.run.choose('short-lived');
  await api.pauseQueue(true);
  try {
    await dialog.run.start.click();
    await expect(dialog.build.status).toHaveText(/Queued/);
    await service.repo.deleteBranch('short-lived');
    await service.repo.prune();
  } finally {
    await api.pauseQueue(false);
  }
  await dialog.build.toBe('Failure');
  await expect(dialog.build.explanation).toContainText('not there any more');
  await expect(dialog.build.explanation).toContainText('short-lived');
});

test('steps have numbers, names and markers, and the second build is cached', async ({ register, dialog, api }) => {
  const service = await register();
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { build } = dialog;
  await build.toBe('Success');
  const [first] = await api.builds(service.id);
  const stored = await api.build(first?.id ?? '');
  await expect(build.steps).toHaveCount(stored.steps.length);
  for (const step of stored.steps) {
    await expect(build.steps.filter({ hasText: step.name }).first()).toContainText(`#${step.number}`);
  }
  await expect(build.step('RUN sort').marker('DONE')).toBeVisible();
  await expect(build.step('RUN sort').marker('CACHED')).toBeHidden();

  await dialog.run.unfold();
  await dialog.run.start.click();
  await expect(build.what).toContainText('#2');
  await build.toBe('Success');
  for (const name of ['COPY words.txt', 'RUN sort', 'RUN echo all is well']) {
    await expect(build.step(name).marker('CACHED')).toBeVisible();
  }
  await expect(build.fact('Cached')).toContainText(/^3 of \d+/);
  // The marker's row may have scrolled out of sight.
  await build.log.find('CACHED');
});

test('the commit that was seen is built, although the branch has moved on', async ({ register, dialog, api }) => {
  const service = await register();
  const seen = await service.repo.head('main');
  await dialog.openRun(service.id);
  await expect(dialog.root).toContainText(seen.slice(0, 7));
  await service.repo.commit('main', { 'words.txt': 'not seen\n' }, 'Behind your back');
  await dialog.run.start.click();
  await dialog.build.toBe('Success');
  const [build] = await api.builds(service.id);
  expect(build).toMatchObject({ commit: seen });
  expect(await api.log(build?.id ?? '')).toContain('banana');
});

test('while one builds, the next waits its turn and says why', async ({ register, dialog }) => {
  const service = await register({ ...QUICK, ...ENDLESS });
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  await expect(dialog.build.log.log).toContainText('waiting for ever');
  await dialog.run.unfold();
  await dialog.run.start.click();
  await expect(dialog.build.what).toContainText('#2');
  await expect(dialog.build.status).toHaveText(/Queued/);
  await expect(dialog.build.root).toContainText(/waits for this service's running build/);
});

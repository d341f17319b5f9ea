// Running a build: choosing the branch, starting, watching, the result.

import { ENDLESS, QUICK, ticking } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';

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
  await expect(build.log.log).toContainText('CACHED');
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

// Everybody can use it: assistive programs.

import AxeBuilder from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { ENDLESS, FAILING } from '../fixtures/sources';
import { expect, NOBODY, test } from '../fixtures/test';
import { AnyScreen, everyScreen } from '../pages/frame';

async function withoutViolations(page: Page, where: string): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']).analyze();
  const grave = violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' … ')}`);
  expect(grave, where).toEqual([]);
}

for (const colorScheme of ['light', 'dark'] as const) {
  test.describe(colorScheme, () => {
    test.use({ colorScheme });

    test('a build that runs has no grave fault for assistive programs', async ({ page, register, dialog }) => {
      const service = await register(ENDLESS);
      await dialog.openRun(service.id);
      await dialog.run.start.click();
      await expect(dialog.build.log.log).toContainText('waiting for ever');
      await withoutViolations(page, 'a running build');
    });

    test('no screen has a grave fault for assistive programs', async ({ page, register, api, browser, server }) => {
      test.slow();
      const service = await register(FAILING);
      const failed = await api.run(service.id);
      await service.repo.commit('good', { Dockerfile: 'FROM busybox:1\nRUN echo fine\n' }, 'A good one');
      const good = await api.run(service.id, 'good');
      const screen = new AnyScreen(page);
      for (const path of everyScreen(service.id, [failed.id, good.id])) {
        await screen.open(path);
        await withoutViolations(page, path);
      }
      const stranger = await browser.newContext({ baseURL: server.url, storageState: NOBODY, colorScheme });
      const door = await stranger.newPage();
      await door.goto('/sign-in');
      await withoutViolations(door, '/sign-in');
      await stranger.close();
    });
  });
}

// Everybody can use it: assistive programs.

import AxeBuilder from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { ENDLESS } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';

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
  });
}

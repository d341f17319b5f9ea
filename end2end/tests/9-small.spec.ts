// A small screen: nothing lies beside it.

import type { Page } from '@playwright/test';
import { FAILING } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';
import { AnyScreen, everyScreen } from '../pages/frame';

async function noSidewaysScroll(page: Page, where: string): Promise<void> {
  const [wide, seen] = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return [scrollWidth, clientWidth];
  });
  expect(wide, where).toBeLessThanOrEqual(seen ?? 0);
}

test('360 pixels are wide enough', async ({ page, register, api }) => {
  await page.setViewportSize({ width: 360, height: 740 });
  const service = await register(FAILING);
  const failed = await api.run(service.id);
  const screen = new AnyScreen(page);
  for (const path of everyScreen(service.id, [failed.id])) {
    await screen.open(path);
    await noSidewaysScroll(page, path);
  }
});

// What every page has: the program that takes over, the banner, the account.

import type { Locator, Page } from '@playwright/test';

/** Waits until the page's program runs: before, a click is a plain link or a plain form. */
export async function hydrated(page: Page): Promise<void> {
  await page.locator('[data-hydrated]').first().waitFor({ state: 'attached' });
}

export abstract class Screen {
  constructor(readonly page: Page) {}

  protected async goto(path: string): Promise<void> {
    await this.page.goto(path);
    await hydrated(this.page);
  }

  get signOut(): Locator {
    return this.page.getByRole('button', { name: 'Sign out' });
  }
}

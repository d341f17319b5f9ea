// What every page has: the program that takes over, the banner, the account.

import type { Locator, Page } from '@playwright/test';

export abstract class Screen {
  constructor(readonly page: Page) {}

  protected async goto(path: string): Promise<void> {
    await this.page.goto(path);
    await this.hydrated();
  }

  /** Waits until the page's program runs: before, a click is a plain link or a plain form. */
  async hydrated(): Promise<void> {
    await this.page.locator('[data-hydrated]').first().waitFor({ state: 'attached' });
  }

  async signOut(): Promise<void> {
    await this.page.getByLabel(/^Account/).click();
    await this.page.getByRole('button', { name: 'Sign out' }).click();
  }

  /** The banner that is there while the live connection is down. */
  get banner(): Locator {
    return this.page.getByRole('status').filter({ hasText: /connection/i });
  }
}

/** Any page, by its address. */
export class AnyScreen extends Screen {
  async open(path: string): Promise<void> {
    await this.goto(path);
  }
}

/** The addresses of everything that a signed-in person sees: of a service, of its builds, and of the installation. */
export function everyScreen(service: string, builds: string[]): string[] {
  const edit = `/services/edit/${service}`;
  return [
    '/services',
    '/services?add=1',
    edit,
    `${edit}?edit=registry`,
    `${edit}?edit=source`,
    `${edit}?build=settings`,
    `${edit}?build=run`,
    ...builds.map((id) => `${edit}?build=run&id=${id}`),
    `${edit}?build=history`,
    `${edit}?build=help`,
    '/settings/check',
  ];
}

// The page "Check": the self-test of the place where builds run.

import type { Locator } from '@playwright/test';
import { Screen } from './frame';

export class CheckPage extends Screen {
  async open(): Promise<void> {
    await this.goto('/settings/check');
  }

  get run(): Locator {
    return this.page.getByRole('button', { name: 'Run check' });
  }

  get findings(): Locator {
    return this.page.getByRole('list', { name: 'Findings' }).getByRole('listitem');
  }

  /** What was found of one thing, by its title. */
  finding(title: string): Locator {
    return this.findings.filter({ has: this.page.getByRole('heading', { name: title, exact: true }) });
  }
}

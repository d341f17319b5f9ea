import type { Locator } from '@playwright/test';
import { Screen } from './frame';

/** A service's own page, with its pipeline. */
export class ServicePage extends Screen {
  readonly build: Locator = this.page.getByRole('button', { name: 'Build', exact: true }).or(
    this.page.getByRole('link', { name: 'Build', exact: true }),
  );
  readonly registrySettings: Locator = this.page.getByRole('button', { name: 'Registry Settings' }).or(
    this.page.getByRole('link', { name: 'Registry Settings' }),
  );

  async open(id: string): Promise<void> {
    await this.goto(`/services/edit/${id}`);
  }

  heading(name: string): Locator {
    return this.page.getByRole('heading', { name, level: 1 });
  }
}

import type { Locator } from '@playwright/test';
import { AddServiceDialog } from './add-service';
import { Screen } from './frame';

/** "Service Management". */
export class ServicesPage extends Screen {
  readonly heading: Locator = this.page.getByRole('heading', { name: 'Service Management', level: 1 });
  readonly add: Locator = this.page.getByRole('link', { name: 'Add', exact: true }).or(
    this.page.getByRole('button', { name: 'Add', exact: true }),
  );
  readonly search: Locator = this.page.getByRole('searchbox');
  readonly addDialog = new AddServiceDialog(this.page);

  async open(): Promise<void> {
    await this.goto('/services');
  }

  card(name: string): Locator {
    return this.page.getByRole('link', { name, exact: true });
  }
}

import type { Locator } from '@playwright/test';

export class HistoryTab {
  readonly table: Locator;
  readonly status: Locator;
  readonly branch: Locator;
  readonly older: Locator;
  readonly newer: Locator;

  constructor(root: Locator) {
    this.table = root.getByRole('table');
    this.status = root.getByRole('combobox', { name: 'Status' });
    this.branch = root.getByRole('combobox', { name: 'Branch' });
    this.older = root.getByRole('link', { name: 'Older' });
    this.newer = root.getByRole('link', { name: 'Newer' });
  }

  get rows(): Locator {
    return this.table.getByRole('row').filter({ has: this.table.page().getByRole('cell') });
  }

  row(number: number): Locator {
    return this.rows.filter({ hasText: `#${number}` });
  }
}

import type { Locator } from '@playwright/test';

/** A window over a log of any length. */
export class LogView {
  readonly log: Locator;
  readonly search: Locator;
  readonly follow: Locator;
  readonly firstError: Locator;
  readonly download: Locator;
  readonly copy: Locator;

  constructor(root: Locator) {
    this.log = root.getByRole('log', { name: 'Build log' });
    this.search = root.getByRole('searchbox', { name: 'Search this log' });
    this.follow = root.getByRole('button', { name: 'Follow' });
    this.firstError = root.getByRole('button', { name: 'First ERROR' });
    this.download = root.getByRole('link', { name: 'Download' });
    this.copy = root.getByRole('button', { name: 'Copy', exact: true });
  }
}

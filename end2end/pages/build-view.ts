import { type Locator, expect } from '@playwright/test';
import { LogView } from './log-view';

/** One build: status, steps, log, result. */
export class BuildView {
  readonly cancel: Locator;
  readonly steps: Locator;
  readonly log: LogView;

  constructor(private readonly root: Locator) {
    this.cancel = root.getByRole('button', { name: 'Cancel build' });
    this.steps = root.getByRole('list', { name: 'Build steps' }).getByRole('listitem');
    this.log = new LogView(root);
  }

  /** A line of the result: `Image Tag`, `Image Size`, `Build Duration`, `Digest`. */
  fact(name: string): Locator {
    return this.root.locator('dt', { hasText: name }).locator('xpath=following-sibling::dd[1]');
  }

  step(name: string): Locator {
    return this.steps.filter({ hasText: name });
  }

  async toBe(status: 'Success' | 'Failure' | 'Cancelled'): Promise<void> {
    await expect(this.fact('Build Status')).toContainText(status, { timeout: 45_000 });
  }
}

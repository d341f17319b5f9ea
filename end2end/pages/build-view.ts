import { type Locator, expect } from '@playwright/test';
import { LogView } from './log-view';

/** One build: status, steps, log, result. */
export class BuildView {
  /** The badge: `Queued`, `In Progress`, `Success` … */
  readonly status: Locator;
  /** `#7 main 1a2b3c4` */
  readonly what: Locator;
  readonly cancel: Locator;
  /** All of it. */
  readonly region: Locator;
  readonly steps: Locator;
  readonly log: LogView;
  /** What failed, why, and what to do. */
  readonly explanation: Locator;

  constructor(readonly root: Locator) {
    this.status = root.locator('.live .badge').first();
    this.what = root.locator('.live .what');
    this.cancel = root.getByRole('button', { name: 'Cancel build' });
    this.region = root.getByRole('region', { name: /^Build #\d+$/ });
    this.steps = root.getByRole('list', { name: 'Build steps' }).getByRole('listitem');
    this.log = new LogView(root);
    // The innermost: the view around it is a group, too.
    this.explanation = root.getByRole('group').filter({ hasText: 'Build Status' }).last();
  }

  /** A line of the result: `Image Tag`, `Image Size`, `Build Duration`, `Digest`. */
  fact(name: string): Locator {
    return this.root.locator('dt', { hasText: name }).locator('xpath=following-sibling::dd[1]');
  }

  step(name: string): Step {
    return new Step(this.steps.filter({ hasText: name }));
  }

  async toBe(status: 'Success' | 'Failure' | 'Cancelled'): Promise<void> {
    await expect(this.root).toContainText(new RegExp(`Build Status:\\s*${status}`), { timeout: 100_000 });
  }
}

export class Step {
  constructor(readonly root: Locator) {}

  marker(word: 'running' | 'DONE' | 'CACHED' | 'ERROR'): Locator {
    return this.root.getByText(word, { exact: true });
  }

  /** Goes to its lines. */
  async open(): Promise<void> {
    await this.root.getByRole('link').or(this.root.getByRole('button')).first().click();
  }
}

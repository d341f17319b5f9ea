import type { Locator } from '@playwright/test';

/** The form that starts builds. */
export class RunTab {
  readonly branch: Locator;
  readonly commit: Locator;
  readonly start: Locator;

  constructor(private readonly root: Locator) {
    this.branch = root.getByRole('combobox', { name: 'Branch' });
    this.commit = root.getByRole('textbox', { name: 'Commit' });
    this.start = root.getByRole('button', { name: 'Start Build' });
  }

  /** The choices of the open branch list. */
  get options(): Locator {
    return this.root.getByRole('option');
  }

  /** As a person does: open, type, pick. */
  async choose(branch: string): Promise<void> {
    await this.branch.click();
    await this.branch.fill(branch);
    await this.options.filter({ hasText: branch }).first().click();
  }
}

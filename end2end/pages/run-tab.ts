import type { Locator } from '@playwright/test';

/** The form that starts builds; folded while one looks at a build. */
export class RunTab {
  readonly branch: Locator;
  readonly commit: Locator;
  readonly start: Locator;
  readonly options: Locator;
  private readonly fold: Locator;

  constructor(root: Locator) {
    this.branch = root.getByRole('combobox', { name: 'Branch' });
    this.commit = root.getByRole('textbox', { name: 'Commit' });
    this.start = root.getByRole('button', { name: 'Start Build' });
    this.options = root.getByRole('option');
    this.fold = root.getByText('Start another build');
  }

  async unfold(): Promise<void> {
    if (!(await this.start.isVisible())) await this.fold.click();
  }

  /** As a person does: open, type, pick. */
  async choose(branch: string): Promise<void> {
    await this.branch.fill(branch);
    await this.options.filter({ hasText: branch }).first().click();
  }
}

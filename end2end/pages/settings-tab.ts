import type { Locator } from '@playwright/test';

export class SettingsTab {
  readonly autoDetect: Locator;
  readonly specifyPath: Locator;
  readonly wizard: Locator;
  readonly path: Locator;
  readonly profile: Locator;
  readonly noCache: Locator;
  readonly save: Locator;
  readonly discard: Locator;

  constructor(private readonly root: Locator) {
    this.autoDetect = root.getByRole('radio', { name: 'Auto-detect' });
    this.specifyPath = root.getByRole('radio', { name: 'Specify path' });
    this.wizard = root.getByRole('radio', { name: 'Build Wizard' });
    this.path = root.getByRole('textbox', { name: 'Dockerfile path' });
    this.profile = root.getByRole('combobox', { name: 'Build Profile' });
    this.noCache = root.getByRole('switch', { name: 'No Cache' });
    this.save = root.getByRole('button', { name: 'Save' });
    this.discard = root.getByRole('button', { name: 'Discard' });
  }

  /** The status message with exactly this text. */
  message(text: string): Locator {
    return this.root.getByRole('status').filter({ hasText: new RegExp(`^\\s*${text}\\s*$`) });
  }
}

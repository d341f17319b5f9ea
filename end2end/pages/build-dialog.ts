import type { Locator } from '@playwright/test';
import { BuildView } from './build-view';
import { Screen } from './frame';
import { HistoryTab } from './history-tab';
import { RunTab } from './run-tab';
import { SettingsTab } from './settings-tab';

/** The dialog "Build", which the Build stage opens. Its state is in the address. */
export class BuildDialog extends Screen {
  readonly root: Locator = this.page.getByRole('dialog', { name: 'Build', exact: true });
  readonly close: Locator = this.root.getByRole('link', { name: 'Close' });
  readonly settings = new SettingsTab(this.root);
  readonly run = new RunTab(this.root);
  readonly history = new HistoryTab(this.root);
  readonly build = new BuildView(this.root);

  tab(name: 'Settings' | 'Run' | 'Build History' | 'Help'): Locator {
    return this.root.getByRole('tab', { name, exact: true }).or(this.root.getByRole('link', { name, exact: true }));
  }

  async openRun(service: string): Promise<void> {
    await this.goto(`/services/edit/${service}?build=run`);
  }

  async openSettings(service: string): Promise<void> {
    await this.goto(`/services/edit/${service}?build=settings`);
  }

  async openHistory(service: string): Promise<void> {
    await this.goto(`/services/edit/${service}?build=history`);
  }

  /** One build, running or finished. */
  async openBuild(service: string, build: string): Promise<void> {
    await this.goto(`/services/edit/${service}?build=run&id=${build}`);
  }
}

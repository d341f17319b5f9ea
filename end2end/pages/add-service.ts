import type { Locator, Page } from '@playwright/test';

/** What a person fills in to register a service. */
export interface ServiceForm {
  name: string;
  url: string;
  token: string;
  registry: string;
  image: string;
  user: string;
  password: string;
}

export class AddServiceDialog {
  readonly root: Locator;
  readonly name: Locator;
  readonly url: Locator;
  readonly token: Locator;
  readonly defaultBranch: Locator;
  readonly checkRepository: Locator;
  readonly registryUrl: Locator;
  readonly path: Locator;
  readonly imageName: Locator;
  readonly registryUser: Locator;
  readonly registryPassword: Locator;
  readonly plainHttp: Locator;
  readonly testConnection: Locator;
  readonly register: Locator;

  constructor(page: Page) {
    this.root = page.getByRole('dialog', { name: 'Add service' });
    this.name = this.root.getByLabel('Service name');
    this.url = this.root.getByLabel('Repository URL');
    this.token = this.root.getByLabel('Access token');
    this.defaultBranch = this.root.getByLabel('Default branch');
    this.checkRepository = this.root.getByRole('button', { name: 'Check repository' });
    this.registryUrl = this.root.getByLabel('Registry URL');
    this.path = this.root.getByLabel('Path');
    this.imageName = this.root.getByLabel('Image name');
    this.registryUser = this.root.getByLabel('Registry username');
    this.registryPassword = this.root.getByLabel('Registry password');
    this.plainHttp = this.root.getByLabel('Plain HTTP');
    this.testConnection = this.root.getByRole('button', { name: 'Test connection' });
    this.register = this.root.getByRole('button', { name: 'Register' });
  }

  kind(name: 'Harbor (recommended)' | 'Docker Hub' | 'Private Docker Registry'): Locator {
    return this.root.getByRole('radio', { name, exact: true });
  }

  async fill(form: ServiceForm): Promise<void> {
    await this.name.fill(form.name);
    await this.url.fill(form.url);
    await this.token.fill(form.token);
    await this.kind('Private Docker Registry').check();
    await this.registryUrl.fill(form.registry);
    await this.path.fill('e2e');
    await this.imageName.fill(form.image);
    await this.registryUser.fill(form.user);
    await this.registryPassword.fill(form.password);
    await this.plainHttp.check();
  }
}

import type { Locator } from '@playwright/test';
import { Screen } from './frame';

export class SignInPage extends Screen {
  readonly user: Locator = this.page.getByRole('textbox', { name: 'User' });
  readonly password: Locator = this.page.getByLabel('Password', { exact: true });
  readonly button: Locator = this.page.getByRole('button', { name: 'Sign in' });
  /** "Set your password", where the one-time link leads. */
  readonly newPassword: Locator = this.page.getByLabel('New password');
  readonly repeatPassword: Locator = this.page.getByLabel('Repeat password');
  readonly setPassword: Locator = this.page.getByRole('button', { name: 'Set password' });

  async open(): Promise<void> {
    await this.goto('/sign-in');
  }

  async signIn({ user, password }: { user: string; password: string }): Promise<void> {
    await this.user.fill(user);
    await this.password.fill(password);
    await this.button.click();
  }

  async choosePassword(password: string, repeated = password): Promise<void> {
    await this.newPassword.fill(password);
    await this.repeatPassword.fill(repeated);
    await this.setPassword.click();
  }
}

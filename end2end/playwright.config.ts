import { defineConfig } from '@playwright/test';
import { chromium } from './fixtures/browser';

export default defineConfig({
  testDir: 'tests',
  outputDir: 'test-results',
  // A worker has parts of its own (see fixtures/test.ts) and runs one test at a time: no test meets another.
  fullyParallel: true,
  workers: 2,
  forbidOnly: Boolean(process.env.CI),
  // Once more in CI, where other work may share the machine: a story that needs it is listed as flaky.
  retries: process.env.CI ? 1 : 0,
  // Limits for a machine that is busy; a story that goes well never comes near them.
  timeout: 120_000,
  expect: { timeout: 30_000 },
  reporter: 'list',
  use: {
    locale: 'en-US',
    viewport: { width: 1280, height: 800 },
    permissions: ['clipboard-read', 'clipboard-write'],
    launchOptions: { executablePath: chromium(), args: ['--no-sandbox'] },
    // Where there is a second try it is the one to be looked at: a trace costs every story time.
    trace: process.env.CI ? 'on-first-retry' : 'retain-on-failure',
    screenshot: 'only-on-failure',
  },
});

import { defineConfig } from '@playwright/test';
import base from '../playwright.config';

export default defineConfig(base, {
  testDir: '.',
  outputDir: '../test-results/screens',
  workers: 1,
  // Every picture of one state, one after the other.
  timeout: 480_000,
});

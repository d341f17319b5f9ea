// A hand on the wheel and a log that grows: on a busy machine the page's own placing of the scroll bar can stop the hand.

import { ticking } from '../fixtures/sources';
import { expect, test } from '../fixtures/test';

test('following stops where one reads and goes on at the end', async ({ register, dialog, api }) => {
  test.slow();
  const service = await register(ticking(250));
  await dialog.openRun(service.id);
  await dialog.run.start.click();
  const { log } = dialog.build;
  await expect(log.follow).toBeChecked();
  await expect.poll(() => lastTick(log)).toBeGreaterThan(50);
  const id = (await api.builds(service.id))[0]?.id ?? '';
  await log.log.hover();
  await dialog.page.mouse.wheel(0, -10_000);
  await expect(log.follow).not.toBeChecked();
  await expect(log.row(1)).toBeInViewport();
  const total = await log.log.evaluate((log) => log.scrollHeight);
  await expect.poll(() => log.log.evaluate((log) => log.scrollHeight)).toBeGreaterThan(total + 100);
  await expect(log.row(1), 'news do not move what one reads').toBeInViewport();
  await log.follow.click();
  await expect.poll(() => lastTick(log)).toBeGreaterThan(60);
  await dialog.build.toBe('Success');
  // The export's rows have come behind it.
  await expect(log.follow).toBeChecked();
  await expect(log.row((await api.log(id)).trimEnd().split('\n').length)).toBeInViewport();
  await log.find('tick 250 of 250');
});

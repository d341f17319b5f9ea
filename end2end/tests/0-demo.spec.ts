// The first minutes: `make run`, and a build of the demo's service.

import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { expect, test } from '@playwright/test';
import { Api } from '../fixtures/api';
import { MakeRun, answers } from '../fixtures/make-run';
import { Folder } from '../fixtures/processes';
import { Rig } from '../fixtures/rig';
import { ADMIN } from '../fixtures/server';
import { BuildDialog } from '../pages/build-dialog';
import { ServicePage } from '../pages/service';
import { ServicesPage } from '../pages/services';
import { SignInPage } from '../pages/sign-in';

/** The digest that the demo's registry has under this name. */
async function digestOf(image: string): Promise<string | null> {
  const [, registry, name, tag] = image.match(/^([^/]+)\/(.+):([^:/]+)$/) ?? [];
  const accept = 'application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json';
  const reply = await fetch(`http://${registry}/v2/${name}/manifests/${tag}`, { method: 'HEAD', headers: { accept } });
  expect(reply.status, image).toBe(200);
  return reply.headers.get('docker-content-digest');
}

test('from make run to the image of the service hello', async ({ browser }) => {
  test.setTimeout(360_000);
  const rig = await Rig.start();
  const folder = new Folder();
  try {
    // The demo takes two, next to each other, and moves on where one is taken.
    const ports = { listen: await rig.freePort(), demo: await rig.freePort() };
    const first = MakeRun.start(folder, ports, ADMIN.password);
    const url = await first.ready();
    expect(url).toBe(`http://127.0.0.1:${ports.listen}`);
    expect(first.said, 'no link is needed').not.toContain('/setup/');
    expect(statSync(folder.file('data')).mode & 0o777, 'nobody else may look into it').toBe(0o700);

    const page = await browser.newPage({ baseURL: url });
    const door = new SignInPage(page);
    await door.open();
    await door.signIn(ADMIN);
    const services = new ServicesPage(page);
    await expect(services.heading).toBeVisible();
    await services.hydrated();
    await services.card('hello').click();
    const service = new ServicePage(page);
    await expect(service.heading('hello')).toBeVisible();
    await service.build.click();
    const dialog = new BuildDialog(page);
    await dialog.tab('Run').click();
    await dialog.run.start.click();
    await dialog.build.toBe('Success');

    const api = await Api.signIn(url, ADMIN);
    const [hello] = await api.services();
    const [built] = await api.builds(hello?.id ?? '');
    const digest = await digestOf(built?.image_tag ?? '');
    await expect(dialog.build.fact('Digest')).toContainText(digest ?? 'none');
    expect(await api.build(built?.id ?? '')).toMatchObject({ number: 1, status: 'success', digest, log_verified: true });
    await page.context().close();

    // One at a time; the first one does not notice.
    const second = MakeRun.start(folder, ports, ADMIN.password);
    expect(await second.ended()).toBe(1);
    expect(second.said).toContain('Another `make run`');
    await expect.poll(() => answers(`${url}/sign-in`)).toBe(true);

    const registry = built?.image_tag?.split('/')[0] ?? '';
    await expect.poll(() => answers(`http://${registry}/v2/`)).toBe(true);
    expect(await first.interrupt(), 'ended by a person, not by a fault').toBe(0);
    expect(await answers(`http://${registry}/v2/`)).toBe(false);

    // Somebody else has taken the registry's port meanwhile: the service follows the registry to its next one.
    const taken = createServer().listen(Number(registry.split(':')[1]), '127.0.0.1');
    await once(taken, 'listening');
    try {
      const again = MakeRun.start(folder, ports, ADMIN.password);
      await again.ready();
      expect(again.said).toContain("the demo's registry now listens on");
      const later = await Api.signIn(url, ADMIN);
      const build = await later.run(hello?.id ?? '');
      expect(build).toMatchObject({ number: 2, status: 'success' });
      expect(build.image_tag).not.toContain(registry);
      expect(await digestOf(build.image_tag ?? '')).toBe(build.digest);
      // A server that nobody has stopped is another matter.
      process.kill(Number(readFileSync(folder.file('data/lock'), 'utf8')), 'SIGKILL');
      expect(await again.ended()).toBe(128 + 9);
      expect(again.said).toContain('ended by signal 9');
    } finally {
      taken.close();
    }
  } finally {
    await folder.remove();
    await rig.stop();
  }
});

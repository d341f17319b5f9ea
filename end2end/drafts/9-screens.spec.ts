// The help's scrolling part cannot be reached by keyboard.
// Belongs into 9-assistive, for light and dark.

    test('no screen has a grave fault for assistive programs', async ({ page, register, api, browser, server }) => {
      test.slow();
      const service = await register(FAILING);
      const failed = await api.run(service.id);
      await service.repo.commit('good', { Dockerfile: 'FROM busybox:1\nRUN echo fine\n' }, 'A good one');
      const good = await api.run(service.id, 'good');
      const edit = `/services/edit/${service.id}`;
      const screen = new AnyScreen(page);
      for (const path of [
        '/services',
        '/services?add=1',
        edit,
        `${edit}?edit=registry`,
        `${edit}?edit=source`,
        `${edit}?build=settings`,
        `${edit}?build=run`,
        `${edit}?build=run&id=${failed.id}`,
        `${edit}?build=run&id=${good.id}`,
        `${edit}?build=history`,
        `${edit}?build=help`,
      ]) {
        await screen.open(path);
        await withoutViolations(page, path);
      }
      const stranger = await browser.newContext({ baseURL: server.url, storageState: NOBODY, colorScheme });
      const door = await stranger.newPage();
      await door.goto('/sign-in');
      await withoutViolations(door, '/sign-in');
      await stranger.close();
    });

// start_to_ready_ms: from the start of the process to the last byte of its first page, looked for every 2 ms; the
//   slower of two medians of 5: on an empty data folder (migrations, keys, password) and on one with builds in it.
// idle_rss_mb: VmRSS (1 MB = 1,000,000 bytes) of a server that has shown its pages and done a build, after 15 s of rest.
import { Browser } from "../lib/browser.mjs";
import { median } from "../lib/numbers.mjs";
import { memoryMb, sleep } from "../lib/process.mjs";
import { Server } from "../lib/server.mjs";

const files = { Dockerfile: "FROM busybox:1\nRUN echo hello\n" };

export async function measure({ rig, quick }) {
  const times = quick ? 2 : 5;
  const first = [];
  for (let i = 0; i < times; i++) await Server.with(rig, async (server) => first.push(server.readyMs));

  return Server.with(rig, async (server) => {
    const service = await server.service(files);
    await server.build(service);
    const again = [];
    for (let i = 0; i < times; i++) {
      await server.stop();
      again.push(await server.start());
    }
    await server.build(service);
    await Browser.with(server, async ({ page }) => {
      for (const path of ["/services", `/services/edit/${service.id}`]) await page.goto(path);
    });
    await sleep(quick ? 3_000 : 15_000);
    return [
      { name: "start_to_ready_ms", value: Math.max(median(first), median(again)), unit: "ms" },
      { name: "idle_rss_mb", value: memoryMb(server.pid, "VmRSS"), unit: "MB" },
    ];
  });
}

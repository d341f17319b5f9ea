// start_click_to_queued_ms_p99: from the click on Start Build (the input event's own time stamp) to the frame that shows
// the new build as Queued; p99 of 120 clicks, each on another commit. The queue is paused, so
// nothing runs beside them, and each is cancelled before the next.
import { Browser, clickStart } from "../lib/browser.mjs";
import { percentile } from "../lib/numbers.mjs";
import { Server } from "../lib/server.mjs";

const files = (turn) => ({ Dockerfile: "FROM busybox:1\nCOPY turn /turn\n", turn: `${turn}\n` });

export function measure({ rig, quick }) {
  return Server.with(rig, async (server) => {
    const service = await server.service(files(0));
    await server.api("PUT", "system/queue", { paused: true });
    const times = await Browser.with(server, async ({ page }) => {
      const times = [];
      for (let turn = 1; turn <= (quick ? 10 : 120); turn++) {
        await rig.command("commit", { repo: service.repo, branch: "main", files: files(turn) });
        times.push(await clickStart(page, service, "Queued"));
        const { builds } = await server.api("GET", `services/${service.id}/builds`);
        await server.api("POST", `builds/${builds[0].id}/cancel`);
      }
      return times;
    });
    const slowest = times.map((ms, turn) => ({ turn: turn + 1, ms: Math.round(ms) })).sort((a, b) => b.ms - a.ms).slice(0, 5);
    const detail = { p50: Math.round(percentile(times, 0.5)), slowest };
    return [{ name: "start_click_to_queued_ms_p99", value: percentile(times, 0.99), unit: "ms", detail }];
  });
}

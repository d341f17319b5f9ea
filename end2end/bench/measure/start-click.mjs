// start_click_to_queued_ms_p99: from the click on Start Build (the input event's own time stamp) to the frame that shows
// the new build as Queued; p99 of 120 clicks, each on another commit. The queue is paused, so
// nothing runs beside them, and each is cancelled before the next. The slowest are told with their parts.
import { Browser, clickStart, requestOfClick } from "../lib/browser.mjs";
import { percentile } from "../lib/numbers.mjs";
import { Server } from "../lib/server.mjs";

const files = (turn) => ({ Dockerfile: "FROM busybox:1\nCOPY turn /turn\n", turn: `${turn}\n` });

export function measure({ rig, quick }) {
  return Server.with(rig, async (server) => {
    const service = await server.service(files(0));
    await server.api("PUT", "system/queue", { paused: true });
    const clicks = await Browser.with(server, async ({ page }) => {
      const clicks = [];
      for (let turn = 1; turn <= (quick ? 10 : 120); turn++) {
        await rig.command("commit", { repo: service.repo, branch: "main", files: files(turn) });
        const ms = await clickStart(page, service, "Queued");
        clicks.push({ turn, ms, ...(await requestOfClick(page)) });
        const { builds } = await server.api("GET", `services/${service.id}/builds`);
        await server.api("POST", `builds/${builds[0].id}/cancel`);
      }
      return clicks;
    });
    const all = (part) => clicks.map((click) => click[part]);
    const median = { ms: Math.round(percentile(all("ms"), 0.5)), asked: percentile(all("asked"), 0.5), answered: percentile(all("answered"), 0.5) };
    const slowest = clicks.toSorted((a, b) => b.ms - a.ms).slice(0, 5).map((click) => ({ ...click, ms: Math.round(click.ms) }));
    return [{ name: "start_click_to_queued_ms_p99", value: percentile(all("ms"), 0.99), unit: "ms", detail: { median, slowest } }];
  });
}

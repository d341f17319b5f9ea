// One RUN step prints 1,000,000 numbered lines of 92 bytes as fast as it can, on a server that has just started.
// ingest_lines_lost: lines of that step that GET builds/{id}/log does not give whole and in order, and lines that it gives
//   more than once.
// ingest_lines_per_s: by the server's live stream, which tells of rows only after they are stored: lines divided by the
//   time from the last message before the first of them to the first message after the last. Baseline: lines divided by
//   the whole time of bare buildctl.
// ingest_rss_mb: VmHWM of the server process over all of that (1 MB = 1,000,000 bytes).
import { bareBuild } from "../lib/bare.mjs";
import { memoryMb } from "../lib/process.mjs";
import { Server } from "../lib/server.mjs";

const text = "the quick brown fox jumps over the lazy dog while the build goes on and on and on and";
const files = (count, turn) => ({
  turn,
  Dockerfile: `FROM busybox:1\nCOPY turn /turn\nRUN seq -w 1 ${count} | sed 's/$/ ${text}/'\n`,
});

export function measure({ rig, quick }) {
  const count = quick ? 200_000 : 1_000_000;
  return Server.with(
    rig,
    async (server) => {
      // The daemon is up and the base image there before the figures begin; then the server starts afresh.
      const service = await server.service(files(10, "first"));
      await server.build(service);
      await server.stop();
      await server.start();

      const commit = await rig.command("commit", { repo: service.repo, branch: "main", files: files(count, "many") });
      const { id } = await server.api("POST", `services/${service.id}/builds`, { branch: "main", commit });
      const seconds = await storingSeconds(server, id, count);
      await server.finished(id);
      const rss = memoryMb(server.pid, "VmHWM");

      const { found, repeated } = await linesOf(server, id, count);
      const lost = count - found + repeated;
      const bare = (await bareBuild(server, files(count, "bare"))) / 1000;
      return [
        { name: "ingest_lines_lost", value: lost, unit: "lines", baseline: 0, detail: { found, repeated } },
        { name: "ingest_lines_per_s", value: count / seconds, unit: "lines/s", baseline: count / bare },
        { name: "ingest_rss_mb", value: rss, unit: "MB" },
      ];
    },
    { recordBuildctl: true },
  );
}

/** From the last message without any of the lines to the first with all of them. */
async function storingSeconds(server, id, count) {
  let before = 0;
  let began = performance.now();
  for await (const message of server.live(id)) {
    const rows = message.tail?.total ?? 0;
    // The other steps write a few dozen rows; the first message with lines of this one has hundreds.
    if (rows < 100) [before, began] = [rows, performance.now()];
    if (rows - before >= count) return (performance.now() - began) / 1000;
  }
  throw new Error("the live stream ended before all lines were there");
}

/** How many of the numbered lines the log holds, whole and in order, and how many come again. */
async function linesOf(server, id, count) {
  const line = new RegExp(`^#\\d+ \\S+ (\\d{${String(count).length}}) ${text}$`);
  const decoder = new TextDecoder();
  const seen = new Uint8Array(count + 1);
  let [found, repeated, last] = [0, 0, 0];
  let rest = "";
  for await (const part of (await server.fetch("GET", `builds/${id}/log`)).body) {
    const lines = (rest + decoder.decode(part, { stream: true })).split("\n");
    rest = lines.pop();
    for (const one of lines) {
      const number = Number(line.exec(one)?.[1] ?? 0);
      if (number === 0) continue;
      if (seen[number]) repeated += 1;
      seen[number] = 1;
      if (number > last) {
        found += 1;
        last = number;
      }
    }
  }
  return { found, repeated };
}

// 200 builds at once, of 200 services, by the runner `kubernetes`. In place of the cluster stands the rig's double of it
// (end2end/rig/src/kube_double): no machine of this size has room for 200 Pods. Its API is spoken to over TLS, and each
// Pod's real relay (`kiops-agent relay`, 200 processes) is reached through the real port-forward protocol. The relays serve
// a build that is recorded first: the spool of one that BuildKit runs on this machine, 12 steps that print a line every
// 200 ms, about 45 s. The double writes its events again at their own times, and ends each line with the machine's clock at
// that moment (milliseconds). All builds are queued while the queue is paused, and begin when it is opened.
//
// The relays and the double are on this machine, too, and share its processors with the server: in a cluster they do not.
//
// builds_200_line_to_server_ms_p99: over all lines of 20 of the 200 builds, evenly spread, that are followed by their live
//   streams, which tell of lines only after they are stored: from a line's writing to the message with it. That holds also
//   what the stream takes: it tells at most every 50 ms.
// builds_200_rss_mb: VmHWM of the server process over all of that (1 MB = 1,000,000 bytes).
//
// Every build must end with Success, its log verified against the count and hash of its agent, its image found in the
// registry, and all of them must have run at the same time.
import { linkSync } from "node:fs";
import { join } from "node:path";
import { percentile } from "../lib/numbers.mjs";
import { keptFolder, memoryMb, program, until } from "../lib/process.mjs";
import { copyImage } from "../lib/registry.mjs";
import { Server } from "../lib/server.mjs";

const steps = 12;
const linesPerStep = 16;
// Each step is another one: BuildKit runs equal ones once.
const step = (number) =>
  `RUN for i in $(seq ${linesPerStep}); do echo "step ${number}, line $i: the quick brown fox jumps over the lazy dog"; usleep 200000; done`;
const files = { Dockerfile: `FROM busybox:1\n${Array.from({ length: steps }, (_, i) => step(i + 1)).join("\n")}\n` };
const stamp = / @(\d{13})$/;

export async function measure({ rig, quick }) {
  const count = quick ? 20 : 200;
  const followed = quick ? 4 : 20;
  const { folder, remove } = keptFolder("kiops-bench-recording-");
  try {
    const recorded = await record(rig, join(folder, "spool"));
    const agent = program("KIOPS_AGENT");
    const kubeconfig = await rig.command("kube_double", { agent, recording: recorded.spool });
    const environment = {
      KIOPS_RUNNER: "kubernetes",
      KIOPS_KUBECONFIG: kubeconfig,
      KIOPS_IMAGE: "rig.invalid/kiops:1",
      KIOPS_BUILDER_IMAGE: "rig.invalid/buildkit:1",
      KIOPS_BUILDS_AT_ONCE: String(count),
    };
    return await Server.with(rig, (server) => replay(server, recorded, count, followed), { environment });
  } finally {
    await remove();
    await rig.command("kube_double_stop");
  }
}

/** One real build; its spool is kept as `spool`. */
function record(rig, spool) {
  return Server.with(rig, async (server) => {
    const service = await server.service(files);
    const { id } = await server.api("POST", `services/${service.id}/builds`, { branch: "main", commit: service.head });
    // The attempt's folder goes when the build is over: a second name keeps the file.
    await until("the build's spool", () => {
      try {
        linkSync(join(server.folder, "data", "local", `${id}-1`, "spool"), spool);
        return true;
      } catch (error) {
        if (error.code === "ENOENT") return false;
        throw error;
      }
    });
    const { digest } = await server.finished(id);
    return { spool, digest, ...service };
  });
}

async function replay(server, recorded, count, followed) {
  const services = [];
  await inParallel(Array.from({ length: count }, (_, i) => i), 8, async (i) => {
    services[i] = await server.register(`${recorded.repo}-${i}`, recorded.url);
  });
  await copyImage(server.rig.registry, recorded.image, recorded.digest, services.map(({ image }) => image));

  await server.api("PUT", "system/queue", { paused: true });
  const ids = [];
  await inParallel(services, 8, async ({ id }, i) => {
    const build = await server.api("POST", `services/${id}/builds`, { branch: "main", commit: recorded.head });
    ids[i] = build.id;
  });
  const every = count / followed;
  const following = ids.filter((_, i) => i % every === 0).map((id) => delaysOf(server, id));
  const parts = await Promise.all([...following, server.api("PUT", "system/queue", { paused: false })]);
  const delays = parts.slice(0, followed).flat();

  const builds = [];
  for (const id of ids) builds.push(await server.finished(id));
  const rss = memoryMb(server.pid, "VmHWM");
  for (const { id, log_verified, image_size_bytes } of builds) {
    if (log_verified !== true) throw new Error(`build ${id}: its log is not what its agent wrote`);
    if (!image_size_bytes) throw new Error(`build ${id}: its image was not found`);
  }
  const lastStart = Math.max(...builds.map(({ started_at }) => started_at));
  const firstEnd = Math.min(...builds.map(({ finished_at }) => finished_at));
  if (firstEnd <= lastStart) throw new Error("the first build had ended before the last one began");
  const detail = {
    p50: percentile(delays, 0.5),
    max: percentile(delays, 1),
    lines: delays.length,
    all_at_once_s: (firstEnd - lastStart) / 1000,
  };
  return [
    { name: "builds_200_line_to_server_ms_p99", value: percentile(delays, 0.99), unit: "ms", detail },
    { name: "builds_200_rss_mb", value: rss, unit: "MB" },
  ];
}

/** From each line's writing to its arrival here, until the build is over. */
async function delaysOf(server, id) {
  // By row: a row that comes again has arrived before.
  const delays = new Map();
  for await (const { tail } of server.live(id)) {
    const now = Date.now();
    for (const [i, { text }] of (tail?.rows ?? []).entries()) {
      const written = stamp.exec(text)?.[1];
      if (written && !delays.has(tail.first + i)) delays.set(tail.first + i, now - Number(written));
    }
  }
  const log = await (await server.fetch("GET", `builds/${id}/log`)).text();
  const stored = log.split("\n").filter((line) => stamp.test(line)).length;
  if (stored < steps * linesPerStep) throw new Error(`build ${id}: its log has only ${stored} lines`);
  if (delays.size !== stored) throw new Error(`build ${id}: ${delays.size} of ${stored} lines came by its live stream`);
  return [...delays.values()];
}

/** So many at the same time. */
async function inParallel(items, width, work) {
  const left = [...items.entries()];
  const worker = async () => {
    for (let next = left.shift(); next; next = left.shift()) await work(next[1], next[0]);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

// history_100k_builds_ms_p99: GET services/{id}/builds of a service with 100,000 builds, 50 a page, at random places, in
// both directions and with every filter, from the request to the last byte of the reply; p99 of 400 requests on a database,
// the worse of SQLite and PostgreSQL. All but three builds are copies, made in the database, of those three real ones.
import { percentile } from "../lib/numbers.mjs";
import { run, sleep } from "../lib/process.mjs";
import { Server } from "../lib/server.mjs";

const total = 100_000;
const minute = 60_000;

export async function measure({ rig, quick }) {
  const requests = quick ? 100 : 400;
  const sqlite = await Server.with(rig, (server) => {
    const file = `${server.folder}/data/kiops.db`;
    return times(server, requests, (sql) => run("sqlite3", ["-bail", file], { input: sql }));
  });
  const url = await rig.command("postgres");
  const postgres = await Server.with(
    rig,
    (server) => {
      const psql = (sql) => run("psql", ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url], { input: sql });
      // The statistics that PostgreSQL itself collects within a minute.
      return times(server, requests, (sql) => psql(`${sql}\nANALYZE;`));
    },
    { environment: { KIOPS_DATABASE_URL: url } },
  );
  return [
    { name: "history_100k_builds_ms_p99", value: Math.max(sqlite, postgres), unit: "ms" },
    { name: "history_100k_builds_sqlite_ms_p99", value: sqlite, unit: "ms" },
    { name: "history_100k_builds_postgres_ms_p99", value: postgres, unit: "ms" },
  ];
}

async function times(server, requests, execute) {
  const service = await server.service({ Dockerfile: "FROM busybox:1\nRUN echo hello\n" });
  const samples = await sampleBuilds(server, service);
  await server.stop();
  await execute(copies(service, samples));
  await server.start();

  const random = numbers(1);
  const pick = (list) => list[random(list.length)];
  const took = [];
  for (let i = 0; i < requests + 20; i++) {
    const filter = new URLSearchParams({ limit: "50" });
    // The newest page, older ones, and the way back to newer ones.
    const way = pick(["", "before", "before", "before", "before", "after", "after", "after", "after"]);
    if (way === "before") filter.set("before", String(random(total) + 2));
    if (way === "after") filter.set("after", String(random(total)));
    const status = pick(["", "", "success", "failure", "cancelled", "in_progress"]);
    if (status) filter.set("status", status);
    const branch = pick(["", "", "main", "feature/7", "feature/39", "never/built"]);
    if (branch) filter.set("branch", branch);
    const began = performance.now();
    const page = await server.api("GET", `services/${service.id}/builds?${filter}`);
    // The first ones open connections and prepare statements.
    if (i >= 20) took.push(performance.now() - began);
    check(page.builds, filter);
  }
  return percentile(took, 0.99);
}

/** A fast answer must also be the right one. */
function check(builds, filter) {
  const before = Number(filter.get("before") ?? total + 1);
  const after = Number(filter.get("after") ?? 0);
  const right = builds.every(
    (build, i) =>
      build.number < (builds[i - 1]?.number ?? before) &&
      build.number > after &&
      (!filter.has("branch") || build.branch === filter.get("branch")) &&
      (!filter.has("status") || build.status === filter.get("status")),
  );
  const free = !filter.has("status") && !filter.has("branch") && before > 50 && after <= total - 50;
  // All of them newest first, and those next to where they were asked from.
  const next = filter.has("after") ? builds.at(-1)?.number === after + 1 : builds[0]?.number === before - 1;
  if (!right || (free && !(next && builds.length === 50))) throw new Error(`wrong page for ${filter}: ${builds.length} builds`);
}

/** One of each end: successful, failed, cancelled. */
async function sampleBuilds(server, service) {
  const good = await server.build(service);
  const bad = await rigCommit(server, service, "FROM busybox:1\nRUN echo hello; false\n");
  const failed = await server.api("POST", `services/${service.id}/builds`, { branch: "main", commit: bad });
  await server.finished(failed.id, "failure");
  await server.api("PUT", "system/queue", { paused: true });
  const stopped = await server.api("POST", `services/${service.id}/builds`, { branch: "main", commit: bad });
  await server.api("POST", `builds/${stopped.id}/cancel`);
  await server.finished(stopped.id, "cancelled");
  await server.api("PUT", "system/queue", { paused: false });
  // Until what they left is cleaned up.
  await sleep(2_000);
  return [good.id, failed.id, stopped.id];
}

const rigCommit = (server, { repo }, Dockerfile) =>
  server.rig.command("commit", { repo, branch: "main", files: { Dockerfile } });

/** SQL that both engines take: which build is a copy of which, and then the copies, column by column. */
function copies(service, [good, bad, stopped]) {
  const random = numbers(2);
  const rows = [];
  for (let number = 4; number <= total; number++) {
    const kind = random(100);
    const sample = kind < 80 ? good : kind < 95 ? bad : stopped;
    const branch = random(2) === 0 ? "main" : `feature/${random(40)}`;
    // Ids are 20 letters of base 32.
    const id = `bld-${number.toString(26).replace(/./g, (digit) => "abcdefghijklmnopqrstuvwxyz"[parseInt(digit, 26)]).padStart(20, "2")}`;
    rows.push(`(${number}, '${id}', '${sample}', '${branch}', '${random(2 ** 32).toString(16).padStart(40, "0")}', ${Date.now() - (total - number) * minute})`);
  }
  const inserts = [];
  while (rows.length > 0) inserts.push(`INSERT INTO seed VALUES ${rows.splice(0, 500).join(",\n")};`);
  return `BEGIN;
CREATE TEMPORARY TABLE seed (number BIGINT, id TEXT, sample TEXT, branch TEXT, commit_hash TEXT, queued_at BIGINT);
${inserts.join("\n")}
INSERT INTO builds (id, org_id, created_by, service_id, number, branch, commit_hash, status, attempt, queued_at, started_at,
    finished_at, cancel_requested_at, lease_epoch, released, image_tag, digest, image_size_bytes, failure_code, diagnosis,
    log_verified, snapshot)
  SELECT seed.id, org_id, created_by, service_id, seed.number, seed.branch, seed.commit_hash, status, attempt, seed.queued_at,
    seed.queued_at + started_at - b.queued_at, seed.queued_at + finished_at - b.queued_at,
    seed.queued_at + cancel_requested_at - b.queued_at, lease_epoch, 1, image_tag, digest, image_size_bytes, failure_code,
    diagnosis, log_verified, snapshot
  FROM seed JOIN builds b ON b.id = seed.sample;
INSERT INTO build_progress (build_id, pos, attempt, seq, chain_count, chain_hash, row_count, open_pieces, open_bytes, view)
  SELECT seed.id, pos, attempt, seq, chain_count, chain_hash, row_count, open_pieces, open_bytes, view
  FROM seed JOIN build_progress p ON p.build_id = seed.sample;
UPDATE services SET build_count = ${total} WHERE id = '${service.id}';
COMMIT;
`;
}

/** The same numbers in every run (mulberry32): each below the given one. */
function numbers(seed) {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

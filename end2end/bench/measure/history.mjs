// history_100k_builds_ms_p99: GET services/{id}/builds of a service with 100,000 builds, 50 a page, at random places
// and with every filter, from the request to the last byte of the reply; p99 of 400 requests on a database, the worse of
// SQLite and PostgreSQL. The builds are copies of real ones, made in the database, so that a row is what it is in use.
import { percentile } from "../lib/numbers.mjs";
import { run } from "../lib/process.mjs";
import { Server } from "../lib/server.mjs";

const total = 100_000;
const branches = 40;
const builds = { good: "FROM busybox:1\nRUN echo good\n", bad: "FROM busybox:1\nRUN false\n" };

export async function measure({ rig, quick }) {
  const requests = quick ? 100 : 400;
  const sqlite = await Server.with(rig, (server) =>
    times(server, requests, (sql) => run("sqlite3", ["-bail", `${server.folder}/data/kiops.db`], { input: sql })),
  );
  const url = await rig.command("postgres");
  const postgres = await Server.with(
    rig,
    (server) => times(server, requests, (sql) => run("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", url], { input: sql })),
    { environment: { KIOPS_DATABASE_URL: url } },
  );
  return [
    { name: "history_100k_builds_ms_p99", value: Math.max(sqlite, postgres), unit: "ms" },
    { name: "history_100k_builds_sqlite_ms_p99", value: sqlite, unit: "ms" },
    { name: "history_100k_builds_postgres_ms_p99", value: postgres, unit: "ms" },
  ];
}

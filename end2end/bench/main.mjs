// `make bench`: measures, prints a table, writes target/bench/report.json, and ends with 1 when a limit that must be
// kept is missed or a measurement fails. One that fails does not stop the others. A run that is not the whole one, by any
// of the settings below, writes report-partial.json instead: the report is always of everything at full size.
//
// BENCH_ONLY=ingest,idle  only these (names of the files in measure/)
// BENCH_PAIRS=10          pairs of runs in the comparisons with bare buildctl
// BENCH_QUICK=1           smaller counts: says whether everything works, not how fast it is
// BENCH_LOG=1             shows the server's log when a measurement fails
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";
import { round } from "./lib/numbers.mjs";
import { Rig } from "./lib/rig.mjs";

// `kept`: missing it fails the command. The other limits are goals, measured and said; so is what has none.
const limits = [
  { name: "start_click_to_queued_ms_p99", most: 100, kept: true },
  { name: "line_to_painted_ms_p50", most: 150, kept: true },
  { name: "line_to_painted_ms_p99", most: 1000, kept: true },
  { name: "overhead_long_build_ratio", most: 1.03 },
  { name: "overhead_cached_build_s", most: 1.5, kept: true },
  { name: "ingest_lines_lost", most: 0, kept: true },
  { name: "ingest_lines_per_s", least: 100_000 },
  { name: "ingest_rss_mb", most: 150 },
  { name: "builds_200_line_to_server_ms_p99", most: 1000, kept: true },
  { name: "builds_200_rss_mb", most: 256, kept: true },
  { name: "idle_rss_mb", most: 64, kept: true },
  { name: "start_to_ready_ms", most: 1000, kept: true },
  { name: "wasm_brotli_kb", most: 250, kept: true },
  { name: "wasm_service_brotli_kb" },
  { name: "open_100k_lines_ms", most: 300, kept: true },
  { name: "open_1m_lines_ms", most: 500 },
  { name: "tab_memory_1m_lines_mb", most: 80 },
  { name: "history_100k_builds_ms_p99", most: 100 },
  { name: "history_100k_builds_sqlite_ms_p99", most: 100 },
  { name: "history_100k_builds_postgres_ms_p99", most: 100 },
  { name: "pod_click_to_first_buildkit_line_ms_p95", most: 5000, kept: true },
  { name: "pod_cached_rebuild_s_p95", most: 9, kept: true },
  { name: "pod_cancel_s_p95", most: 5, kept: true },
  { name: "pod_restart_to_flow_s_p95", most: 5, kept: true },
  { name: "pod_ten_at_once_s" },
];

// The short ones first.
const measurements = [
  "idle",
  "wasm",
  "start-click",
  "line-to-painted",
  "overhead-cached",
  "ingest",
  "open-log",
  "builds-200",
  "history",
  "overhead-long",
  "pods",
];
const only = process.env.BENCH_ONLY?.split(",") ?? measurements;
const quick = Boolean(process.env.BENCH_QUICK);
const usualPairs = 10;
const pairs = Number(process.env.BENCH_PAIRS ?? (quick ? 2 : usualPairs));
const whole = !quick && pairs >= usualPairs && measurements.every((name) => only.includes(name));

const say = (text) => process.stderr.write(`[${(performance.now() / 1000).toFixed(1).padStart(6)}s] ${text}\n`);

const measured = new Map();
const failures = [];
const rig = await Rig.start();
for (const name of measurements.filter((name) => only.includes(name))) {
  say(`measuring ${name} (load ${loadavg()[0].toFixed(2)})`);
  try {
    const { measure } = await import(`./measure/${name}.mjs`);
    for (const figure of await measure({ rig, quick, pairs })) {
      measured.set(figure.name, figure);
      say(`  ${figure.name} = ${round(figure.value)} ${figure.unit}${figure.detail ? `  ${JSON.stringify(figure.detail)}` : ""}`);
    }
  } catch (error) {
    failures.push(name);
    say(`  failed: ${error.stack}`);
  }
}
rig.stop();

const expected = process.env.BENCH_ONLY ? limits.filter(({ name }) => measured.has(name)) : limits;
const missed = [];
const absent = [];
const rows = expected.map(({ name, most, least, kept }) => {
  const { value = null, unit = "", baseline = null } = measured.get(name) ?? {};
  const good = value !== null && (most === undefined || value <= most) && (least === undefined || value >= least);
  if (value === null) absent.push(name);
  else if (!good && kept) missed.push(name);
  const verdict = value === null ? "not measured" : good ? "ok" : kept ? "MISSED" : "over the goal";
  const limit = most === undefined && least === undefined ? "" : `${least === undefined ? "≤" : "≥"} ${most ?? least}`;
  return [name, value === null ? "-" : `${round(value)} ${unit}`.trim(), limit, baseline === null ? "" : String(round(baseline)), verdict];
});

const head = ["name", "value", "limit", "baseline", ""];
const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column].length)));
const line = (row) => row.map((cell, column) => cell.padEnd(widths[column])).join("  ").trimEnd();
const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
console.log(`\n${cpus().length} cores (${cpus()[0].model.trim()}), ${memory}, Linux ${readFileSync("/proc/sys/kernel/osrelease", "utf8").trim()}`);
if (quick) console.log("A QUICK RUN: smaller counts; these figures prove nothing about speed.");
console.log([head, ...rows].map(line).join("\n"));

const folder = new URL("../../target/bench/", import.meta.url);
mkdirSync(folder, { recursive: true });
const report = expected.map(({ name }) => {
  const { value = null, unit = null, baseline = null } = measured.get(name) ?? {};
  return { name, value: round(value), unit, baseline: round(baseline) };
});
const file = whole ? "report.json" : "report-partial.json";
writeFileSync(new URL(file, folder), `${JSON.stringify(report, null, 2)}\n`);
if (!whole) console.log(`Not the whole measurement: written to target/bench/${file}, report.json stays as it was.`);

if (failures.length > 0) console.log(`Failed: ${failures.join(", ")}`);
if (absent.length > 0) console.log(`Not measured: ${absent.join(", ")}`);
if (missed.length > 0) console.log(`Limits missed: ${missed.join(", ")}`);
process.exit(failures.length + absent.length + missed.length > 0 ? 1 : 0);

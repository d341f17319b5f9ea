// playwright-results.mjs REPORT FLAKY: prints "passed failed" of Playwright's JSON report, and writes the names of the
// tests that passed only when they were tried again to the file FLAKY.
import { readFileSync, writeFileSync } from "node:fs";

const [report, flaky] = process.argv.slice(2);
const { stats, suites } = JSON.parse(readFileSync(report, "utf8"));

function* names(suite) {
  for (const spec of suite.specs ?? []) {
    if (spec.tests.some((test) => test.status === "flaky")) yield `${spec.file}:${spec.line} ${spec.title}`;
  }
  for (const inner of suite.suites ?? []) yield* names(inner);
}

writeFileSync(flaky, suites.flatMap((suite) => [...names(suite)]).map((name) => `${name}\n`).join(""));
console.log(stats.expected + stats.flaky, stats.unexpected);

// playwright-results.mjs REPORT FLAKY FAILED: prints "passed failed" of Playwright's JSON report, and writes the names of
// the tests that passed only when they were tried again to the file FLAKY, of those that did not pass to FAILED.
import { readFileSync, writeFileSync } from "node:fs";

const [report, flaky, failed] = process.argv.slice(2);
const { stats, suites } = JSON.parse(readFileSync(report, "utf8"));

function* names(suite, status) {
  for (const spec of suite.specs ?? []) {
    if (spec.tests.some((test) => test.status === status)) yield `${spec.file}:${spec.line} ${spec.title}`;
  }
  for (const inner of suite.suites ?? []) yield* names(inner, status);
}

for (const [file, status] of [[flaky, "flaky"], [failed, "unexpected"]]) {
  writeFileSync(file, suites.flatMap((suite) => [...names(suite, status)]).map((name) => `${name}\n`).join(""));
}
console.log(stats.expected + stats.flaky, stats.unexpected);

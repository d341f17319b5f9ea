#!/usr/bin/env bash
# Every suite once, on real parts. The last line is the sum: `N passed, N failed`.
. "$(dirname "$0")/lib.sh"

purpose=${1:-test}
"$repo/scripts/setup.sh" "$purpose"
cd "$repo"
logs=$(mktemp -d "$cache/test.XXXXXX")
trap 'rm -rf "$logs"' EXIT
passed=0
failed=0

# suite NAME COUNT COMMAND…: runs it, shows its output, and lets `COUNT LOG` print "passed failed".
# A suite that fails or runs nothing without a failed test of its own counts as one failure.
suite() {
  local name=$1 count=$2 code=0 good bad
  shift 2
  say "$name"
  "$@" 2>&1 | tee "$logs/$name" || code=$?
  read -r good bad < <("$count" "$logs/$name" "$code")
  if [ "$bad" = 0 ] && { [ "$code" != 0 ] || [ "$good" = 0 ]; }; then bad=1; fi
  passed=$((passed + good))
  failed=$((failed + bad))
  say "$name: $good passed, $bad failed"
}

# The whole command is one check.
one() { if [ "$2" = 0 ]; then echo 1 0; else echo 0 1; fi; }
cargo_results() { awk '/^test result:/ { good += $4; bad += $6 } END { print good + 0, bad + 0 }' "$1"; }
check_lines() { awk '/^ok / { good++ } /^not ok / { bad++ } END { print good + 0, bad + 0 }' "$1"; }
playwright_results() {
  node -e 'const { stats } = JSON.parse(require("node:fs").readFileSync(process.argv[1])); console.log(stats.expected + stats.flaky, stats.unexpected)' \
    "$logs/playwright.json" 2>/dev/null || echo 0 1
}
playwright() {
  cd end2end
  PLAYWRIGHT_JSON_OUTPUT_NAME=$logs/playwright.json KIOPS_CHROMIUM=$(command -v chromium) \
    node_modules/.bin/playwright test --reporter=list,json
}

host=(--workspace --exclude kiops-frontend)
if [ "$purpose" = quick ]; then
  suite format one cargo fmt --all --check
  suite clippy one scripts/lint.sh
  suite unit cargo_results cargo test "${host[@]}" --lib --bins --no-fail-fast
else
  "$repo/scripts/build.sh"
  export_parts
  suite format one cargo fmt --all --check
  suite clippy one scripts/lint.sh
  suite clippy-wasm one scripts/lint.sh --wasm
  suite cargo cargo_results cargo test "${host[@]}" --no-fail-fast
  suite browser playwright_results playwright
  suite scripts check_lines "$repo/scripts/checks.sh"
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

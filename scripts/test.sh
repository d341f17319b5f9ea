#!/usr/bin/env bash
# Every suite once, on real parts. The last line is the sum, whatever happens: `N passed, N failed`.
trap 'echo "0 passed, 1 failed"' EXIT
. "$(dirname "$0")/lib.sh"

purpose=${1:-test}
passed=0
failed=0
flaky=()
failures=()
# What is going on outside of the suites: it counts as one failure when it does not come to its end.
stage=set-up

finish() {
  local name
  if [ -n "$stage" ]; then
    failed=$((failed + 1))
    say "$stage did not come to its end"
  fi
  for name in ${flaky[@]+"${flaky[@]}"}; do echo "flaky, passed only when tried again: $name"; done
  for name in ${failures[@]+"${failures[@]}"}; do echo "failed: $name"; done
  echo "$passed passed, $failed failed"
}
at_exit finish
# Else a signal would end this script while its children still write.
trap 'exit 130' INT
trap 'exit 143' TERM

"$repo/scripts/setup.sh" "$purpose"
cd "$repo"
logs=$(mktemp -d "$cache/test.XXXXXX")
at_exit rm -rf "$logs"

# suite NAME COUNT COMMAND…: runs it, shows its output, and lets `COUNT LOG` print "passed failed".
# A suite that fails or runs nothing without a failed test of its own counts as one failure.
suite() {
  local name=$1 count=$2 code=0 good bad known=${#failures[@]}
  shift 2
  say "$name"
  stage="the suite $name"
  "$@" 2>&1 | tee "$logs/$name" || code=$?
  read -r good bad < <("$count" "$logs/$name" "$code")
  if [ "$bad" = 0 ] && { [ "$code" != 0 ] || [ "$good" = 0 ]; }; then bad=1; fi
  passed=$((passed + good))
  failed=$((failed + bad))
  # Here, and by name at the end: whoever has only the last lines of a run still learns what failed.
  if [ "$bad" != 0 ]; then
    mapfile -t -O "$known" failures < <(failed_tests "$name")
    [ "${#failures[@]}" != "$known" ] || failures+=("$name (exit code $code)")
  fi
  stage=
  say "$name: $good passed, $bad failed"
}

# failed_tests SUITE: a line for each, with the words of its panic where it is Rust's.
failed_tests() {
  case $1 in
    cargo | unit)
      awk 'function tell() { if (test != "") print test why; test = why = "" }
        /^---- .* stdout ----$/ { tell(); test = $2 }
        /^failures:$/ { tell() }
        test != "" && why == "" && /panicked at / { why = $0; sub(/.*panicked at /, " at ", why); getline; why = why " " substr($0, 1, 200) }
        END { tell() }' "$logs/$1"
      ;;
    browser | shipped-page) cat "$logs/failed" 2>/dev/null ;;
    scripts) sed -n 's/^not ok //p' "$logs/$1" ;;
  esac
}

# The whole command is one check.
one() { if [ "$2" = 0 ]; then echo 1 0; else echo 0 1; fi; }
cargo_results() { awk '/^test result:/ { good += $4; bad += $6 } END { print good + 0, bad + 0 }' "$1"; }
check_lines() { awk '/^ok / { good++ } /^not ok / { bad++ } END { print good + 0, bad + 0 }' "$1"; }
playwright_results() { node scripts/playwright-results.mjs "$logs/playwright.json" "$logs/flaky" "$logs/failed" 2>/dev/null || echo 0 1; }
# The page as it is shipped goes through tools that the other tests' page does not meet. Its run has a folder of its own
# beside this one's, not in it: the names of sockets must be short.
shipped() {
  TMPDIR=$around PLAYWRIGHT_JSON_OUTPUT_NAME=$logs/playwright.json KIOPS_CHROMIUM=$(command -v chromium) WEB_PROFILE=wasm-release \
    scripts/browser.sh --grep @shipped --reporter=list,json
}
playwright() {
  cd end2end
  PLAYWRIGHT_JSON_OUTPUT_NAME=$logs/playwright.json KIOPS_CHROMIUM=$(command -v chromium) \
    node_modules/.bin/playwright test --reporter=list,json
}
browser_suite() {
  rm -f "$logs/playwright.json" "$logs/flaky" "$logs/failed"
  suite "$1" playwright_results "$2"
  [ ! -s "$logs/flaky" ] || mapfile -t -O "${#flaky[@]}" flaky <"$logs/flaky"
}
types() { end2end/node_modules/.bin/tsc --noEmit -p end2end; }

# A cluster's node needs root: an ordinary user's tests leave what stands on one out, and say so.
left_out=()
if [ "$purpose" != quick ] && [ "$(id -u)" != 0 ]; then
  left_out=(-- --skip needs_root::)
  say "the tests that need root are left out: builds in Pods, on a cluster of one node"
fi
host=(--workspace --exclude kiops-frontend)
# A test that hangs must not take the sum with it: the longest suite takes a quarter of this. At a terminal there is
# somebody who sees it, and whose Ctrl-C would not get through `timeout`.
limit=()
[ -t 0 ] || limit=(timeout --kill-after=30 3000)
if [ "$purpose" = quick ]; then
  suite format one cargo fmt --all --check
  suite clippy one scripts/lint.sh
  claim_target
  suite unit cargo_results cargo test "${host[@]}" --lib --bins --no-fail-fast
else
  stage="the build"
  around=${TMPDIR:-/tmp}
  own_tmp
  build_parts
  suite format one cargo fmt --all --check
  suite clippy one scripts/lint.sh
  if has_wasm rustc; then
    suite clippy-wasm one scripts/lint.sh --wasm
  else
    say "the page is not linted: its compiler is Debian's second one, which Clippy does not fit"
  fi
  suite types one types
  claim_target
  suite cargo cargo_results ${limit[@]+"${limit[@]}"} cargo test "${host[@]}" --no-fail-fast \
    ${left_out[@]+"${left_out[@]}"}
  browser_suite browser playwright
  browser_suite shipped-page shipped
  suite scripts check_lines "$repo/scripts/checks.sh"
fi
stage=
[ "$failed" = 0 ]

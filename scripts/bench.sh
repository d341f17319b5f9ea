#!/usr/bin/env bash
# The measurements of README's table, on the release build; writes target/bench/report.json.
export RELEASE=1
. "$(dirname "$0")/lib.sh"

purpose=test
"$repo/scripts/setup.sh" "$purpose"
"$repo/scripts/setup/packages.sh" bench
cd "$repo"
own_tmp
build_parts
KIOPS_CHROMIUM=$(command -v chromium)
export KIOPS_CHROMIUM
node end2end/bench/main.mjs

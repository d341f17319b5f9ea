#!/usr/bin/env bash
# browser.sh [ARGUMENTS…]: the browser tests by themselves; arguments go to Playwright.
. "$(dirname "$0")/lib.sh"

own_tmp
build_parts
cd "$repo/end2end"
node_modules/.bin/playwright test "$@"

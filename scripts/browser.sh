#!/usr/bin/env bash
# browser.sh [ARGUMENTS…]: the browser tests by themselves, on what `make build` has built; arguments go to Playwright.
. "$(dirname "$0")/lib.sh"

export_parts
cd "$repo/end2end"
exec node_modules/.bin/playwright test "$@"

#!/usr/bin/env bash
# The pictures in docs/screens, made from the running product.
. "$(dirname "$0")/lib.sh"

purpose=test
"$repo/scripts/setup.sh" "$purpose"
"$repo/scripts/setup/packages.sh" screens
exec "$repo/scripts/browser.sh" --config screens/playwright.config.ts "$@"

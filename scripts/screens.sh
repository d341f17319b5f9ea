#!/usr/bin/env bash
# The pictures in docs/screens, made from the running product.
. "$(dirname "$0")/lib.sh"

"$repo/scripts/setup.sh" test
"$repo/scripts/setup/packages.sh" screens
exec "$repo/scripts/browser.sh" --config screens/playwright.config.ts "$@"

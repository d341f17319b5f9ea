#!/usr/bin/env bash
# The programs and the web page; with RELEASE=1 as they are shipped, else as they compile soonest.
. "$(dirname "$0")/lib.sh"

say "compiling the programs ($cargo_profile profile)"
cd "$repo"
# The same choice of packages as the tests', so that both share one compilation.
cargo build --workspace --exclude kiops-frontend --profile "$cargo_profile"
"$repo/scripts/build-web.sh"

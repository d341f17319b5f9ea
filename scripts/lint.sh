#!/usr/bin/env bash
# Clippy over the programs and tests, and with --wasm over the page as the browser gets it.
. "$(dirname "$0")/lib.sh"

cd "$repo"
claim_target
if [ "${1:-}" = --wasm ]; then
  exec cargo clippy -p kiops-frontend --target wasm32-unknown-unknown -- -D warnings
fi
exec cargo clippy --workspace --exclude kiops-frontend --all-targets -- -D warnings

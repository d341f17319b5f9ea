#!/usr/bin/env bash
# Clippy over the programs and tests, and with --wasm over the page as the browser gets it.
. "$(dirname "$0")/lib.sh"

cd "$repo"
claim_target
# Another compiler has other lints: what only it finds is shown, and is no failure.
strict=(-D warnings)
case $(rustc --version) in
  "rustc $RUST_VERSION "*) ;;
  *)
    strict=()
    say "$(rustc --version) is not the Rust $RUST_VERSION whose lints are kept: warnings are no failures here"
    ;;
esac
if [ "${1:-}" = --wasm ]; then
  exec cargo clippy -p kiops-frontend --target wasm32-unknown-unknown -- ${strict[@]+"${strict[@]}"}
fi
exec cargo clippy --workspace --exclude kiops-frontend --all-targets -- ${strict[@]+"${strict[@]}"}

#!/usr/bin/env bash
# wasm-split-cli: parts the page's program at the functions that say so (leptos::wasm_split).
. "$(dirname "$0")/../lib.sh"

[ ! -x "$wasm_split_bin/wasm-split-cli" ] || exit 0
lock wasm-split
[ ! -x "$wasm_split_bin/wasm-split-cli" ] || exit 0
scratch
say "compiling wasm-split $WASM_SPLIT_VERSION (about 2 minutes)"
quietly cargo install wasm_split_cli_support --version "$WASM_SPLIT_VERSION" --locked --features build-binary \
  --root "$work" --target-dir "$work/target" ||
  stop "wasm-split $WASM_SPLIT_VERSION could not be compiled: the reason stands above."
mkdir -p "$(dirname "$wasm_split_bin")"
mv -T "$work/bin" "$wasm_split_bin"

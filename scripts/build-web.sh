#!/usr/bin/env bash
# The front end: WASM, its JavaScript, styles, font and public files under hashed names in
# $CARGO_TARGET_DIR/site. The same steps as `cargo leptos build`, without its long installation.
# WEB_PROFILE=wasm-release (shipped: smallest) or wasm-dev (compiles soonest).
. "$(dirname "$0")/lib.sh"

profile=${WEB_PROFILE:-$web_profile}
tools=$(node_modules .)
font=$tools/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2
wasm=$CARGO_TARGET_DIR/$wasm_target/$profile/kiops_frontend.wasm

say "compiling the web page ($profile profile)"
cd "$repo"
rustc=$(wasm_rustc) || stop "Rust's $wasm_target target is missing: run 'make setup'."
# Named only where it is not the usual one: cargo takes another name for another compiler, and compiles anew.
[ "$rustc" = "$(command -v rustc)" ] || export RUSTC=$rustc
cargo build -p kiops-frontend --lib --target "$wasm_target" --profile "$profile"

# build.sh sees to it that no other clone does the same now.
mkdir -p "$site"
inputs=$({
  echo "$profile"
  find style public scripts/build-web.sh scripts/web-assets.mjs scripts/wasm-snip.mjs scripts/rust-names.mjs scripts/versions.env package-lock.json "$wasm" -type f -print0 | sort -z | xargs -0 sha256sum
} | sha256sum)
stamp=$site/.inputs
hashes=$site/.hashes
if [ ! -f "$hashes" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$inputs" ]; then
  scratch
  wasm-bindgen() { "$cache/tools/wasm-bindgen-$(locked_version wasm-bindgen)/bin/wasm-bindgen" "$@"; }
  # The parts of the program: what every page needs, and split_NAME.wasm for what comes when there is need of it.
  "$wasm_split_bin/wasm-split-cli" "$wasm" "$work/parts" --out-name kiops
  for part in "$work"/parts/*.wasm; do
    # Leptos' way to hydrate what this page has nothing of: views that come bit by bit.
    node scripts/wasm-snip.mjs "$part" hydrate_async
  done
  wasm-bindgen --target web --no-typescript --keep-lld-exports --out-dir "$work" --out-name kiops "$work/parts/kiops.wasm"
  mv "$work/kiops_bg.wasm" "$work/parts/kiops.wasm"
  if [ "$profile" = wasm-release ]; then
    say "shrinking the WASM"
    for part in "$work"/parts/*.wasm; do
      "$tools/.bin/wasm-opt" -Oz "$part" -o "$part"
    done
  fi
  mv "$work"/parts/* "$work"
  "$tools/.bin/lightningcss" --bundle --minify --targets 'chrome 120, firefox 121, safari 17' style/main.css -o "$work/kiops.css"
  node scripts/web-assets.mjs "$work" public "$font" "$site" "$profile"
  echo "$inputs" >"$stamp"
fi
# Leptos looks for the names beside the server's program.
for folder in debug release; do
  [ ! -d "$CARGO_TARGET_DIR/$folder" ] || cp "$hashes" "$CARGO_TARGET_DIR/$folder/hash.txt"
done

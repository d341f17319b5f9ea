#!/usr/bin/env bash
# The wasm-bindgen program must have exactly the version of the crate in Cargo.lock.
. "$(dirname "$0")/../lib.sh"

version=$(locked_version wasm-bindgen)
root=$cache/tools/wasm-bindgen-$version
[ ! -x "$root/bin/wasm-bindgen" ] || exit 0
lock wasm-bindgen
[ ! -x "$root/bin/wasm-bindgen" ] || exit 0
scratch
mkdir -p "$work/bin"

from_release() {
  local name
  name=wasm-bindgen-$version-$(uname -m)-unknown-linux-musl
  [ "$(uname -m)" != aarch64 ] || name=wasm-bindgen-$version-aarch64-unknown-linux-gnu
  download "https://github.com/wasm-bindgen/wasm-bindgen/releases/download/$version/$name.tar.gz" "$work/release.tar.gz" &&
    tar -xzf "$work/release.tar.gz" -C "$work/bin" --strip-components=1
}

# Not --locked: the lock file that the crate was published with does not resolve any more.
from_source() {
  say "compiling wasm-bindgen $version (about 2 minutes)"
  quietly cargo install wasm-bindgen-cli --version "$version" --bin wasm-bindgen --root "$work" --target-dir "$work/target"
}

say "installing wasm-bindgen $version"
from_release || from_source || stop "wasm-bindgen $version could not be installed: neither its release archive nor its crate can be reached."
mkdir -p "$root"
mv -T "$work/bin" "$root/bin"

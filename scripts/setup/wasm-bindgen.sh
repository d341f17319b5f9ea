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

# Its version follows Cargo.lock, so its checksum cannot be written down here: it is the one that the project publishes
# with the release. An archive without one, or with another, is not used.
from_release() {
  local name archive sum
  name=wasm-bindgen-$version-$(uname -m)-unknown-linux-musl
  [ "$(uname -m)" != aarch64 ] || name=wasm-bindgen-$version-aarch64-unknown-linux-gnu
  archive=https://github.com/wasm-bindgen/wasm-bindgen/releases/download/$version/$name.tar.gz
  download "$archive.sha256sum" "$work/sum" && download "$archive" "$work/release.tar.gz" || return 1
  sum=$(sha256sum <"$work/release.tar.gz")
  grep -qF "${sum%% *}" "$work/sum" || return 1
  tar -xzf "$work/release.tar.gz" -C "$work/bin" --strip-components=1
}

# Cargo checks every crate against its registry's checksums. Not --locked: the lock file that the crate was published
# with does not resolve any more.
from_source() {
  say "compiling wasm-bindgen $version (about 2 minutes)"
  quietly cargo install wasm-bindgen-cli --version "$version" --bin wasm-bindgen --root "$work" --target-dir "$work/target"
}

say "installing wasm-bindgen $version"
from_release || from_source || stop "wasm-bindgen $version could not be installed: neither its release archive nor its crate can be reached."
mkdir -p "$root"
mv -T "$work/bin" "$root/bin"

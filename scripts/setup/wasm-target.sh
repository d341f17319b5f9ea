#!/usr/bin/env bash
# The standard library for wasm32-unknown-unknown: from rustup, or compiled from the source
# package of the same version where rustup's server cannot be reached.
. "$(dirname "$0")/../lib.sh"

target=wasm32-unknown-unknown
sysroot=$(rustc --print sysroot)
libraries=$sysroot/lib/rustlib/$target/lib
# libstd is copied last, so that its presence means that all is there.
done_already() { compgen -G "$libraries/libstd-*.rlib" >/dev/null; }
done_already && exit 0
lock wasm-target
done_already && exit 0
scratch
version=$(rustc --version | cut -d ' ' -f 2)

from_rustup() { have rustup && timeout 60 rustup target add "$target" >/dev/null 2>&1; }

# The backports suite of the next Debian has rust-src for several versions. Apt gets private
# folders, so that the machine's own lists stay as they are.
source_package() {
  local archive apt package
  # The address is the machine's own, whichever mirror that is.
  archive=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | awk '/\/debian\/$/ && !n++')
  [ -n "$archive" ] || return 1
  mkdir -p "$work/lists/partial" "$work/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive trixie-backports main" >"$work/sources"
  apt=(apt-get -qq -oDir::Etc::SourceList="$work/sources" -oDir::Etc::SourceParts=/dev/null
    -oDir::State::Lists="$work/lists" -oDir::State::status=/dev/null -oDir::Cache::archives="$work/archives"
    -oDir::Cache::pkgcache= -oDir::Cache::srcpkgcache= -oAPT::Sandbox::User="$(id -un)" -oAcquire::Languages=none)
  quietly "${apt[@]}" update || return 1
  package=$(apt-cache "${apt[@]:2}" madison rust-src | awk -v v="$version" 'index($3, v "+") == 1 || index($3, v "-") == 1 { if (!n++) print $3 }')
  [ -n "$package" ] || return 1
  (cd "$work" && quietly "${apt[@]}" download "rust-src=$package") || return 1
  dpkg-deb --extract "$work"/rust-src_*.deb "$work/package"
}

from_source() {
  say "compiling the standard library for $target from Debian's rust-src $version (about 30 s)"
  source_package || return 1
  # cargo's build-std looks for the source in exactly this place of the sysroot.
  mkdir -p "$sysroot/lib/rustlib/src/rust" &&
    cp -r "$work/package/usr/src/rustc-$version/library" "$sysroot/lib/rustlib/src/rust/" || return 1
  mkdir -p "$work/empty/src"
  echo '#![no_std]' >"$work/empty/src/lib.rs"
  printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$work/empty/Cargo.toml"
  (cd "$work/empty" && RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$work/target quietly cargo build --release \
    -Z build-std=std,panic_abort,panic_unwind --target "$target") || return 1
  rm -f "$work/target/$target/release/deps/"libempty-*
  mkdir -p "$libraries" || return 1
  find "$work/target/$target/release/deps" -name '*.rlib' ! -name 'libstd-*' -exec cp {} "$libraries/" \;
  cp "$work/target/$target/release/deps/"libstd-*.rlib "$libraries/"
}

say "installing Rust's $target target"
from_rustup || from_source || true
done_already || stop "Rust's $target target is missing and could not be installed: run 'rustup target add $target'."

#!/usr/bin/env bash
# The standard library for the browser: from rustup, else compiled from the source package of the same version, else
# beside Debian's second compiler, which brings its own source.
. "$(dirname "$0")/../lib.sh"

done_already() { wasm_rustc >/dev/null; }
done_already && exit 0
lock wasm-target
done_already && exit 0
scratch

from_rustup() { have rustup && timeout 60 rustup target add "$wasm_target" >/dev/null 2>&1; }

# The backports suite of the next Debian has rust-src for several versions. Apt gets private
# folders, so that the machine's own lists stay as they are.
source_package() {
  local version=$1 archive apt package
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

# compiled_for RUSTC SOURCE: compiles the standard library in the folder SOURCE and puts it into this compiler's sysroot.
compiled_for() {
  local rustc=$1 source=$2 sysroot libraries target
  sysroot=$("$rustc" --print sysroot)
  libraries=$sysroot/lib/rustlib/$wasm_target/lib
  # cargo's build-std looks for the source in exactly this place of the sysroot. What a package has put there stays;
  # what an earlier run has, may be of an older compiler.
  target=$sysroot/lib/rustlib/src/rust
  if [ ! -e "$target/library" ] || [ -e "$target/.copied" ]; then
    rm -rf "$target/library"
    mkdir -p "$target" && cp -r "$source" "$target/" && touch "$target/.copied" || return 1
  fi
  # Made anew: a first try with another compiler may have left something.
  remove "$work/empty"
  mkdir -p "$work/empty/src"
  echo '#![no_std]' >"$work/empty/src/lib.rs"
  printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$work/empty/Cargo.toml"
  (cd "$work/empty" && RUSTC=$rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$work/empty/target quietly cargo build --release \
    -Z build-std=std,panic_abort,panic_unwind --target "$wasm_target") || return 1
  rm -f "$work/empty/target/$wasm_target/release/deps/"libempty-*
  rm -rf "$libraries"
  mkdir -p "$libraries" && "$rustc" --version >"$libraries/.compiled-for" || return 1
  # libstd is copied last: its presence means that all is there.
  find "$work/empty/target/$wasm_target/release/deps" -name '*.rlib' ! -name 'libstd-*' -exec cp {} "$libraries/" \;
  cp "$work/empty/target/$wasm_target/release/deps/"libstd-*.rlib "$libraries/"
}

from_source() {
  local version
  version=$(rustc --version | cut -d ' ' -f 2)
  source_package "$version" || return 1
  say "compiling the standard library for $wasm_target from Debian's rust-src $version (about 30 s)"
  compiled_for rustc "$work/package/usr/src/rustc-$version/library"
}

# The page may be compiled by another compiler than the programs (see wasm_rustc in lib.sh).
from_second_compiler() {
  local version
  [ "$(id -u)" = 0 ] || return 1
  apt_refresh
  offers "$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$repo/Cargo.toml")" rustc-web || return 1
  say "installing Debian's second Rust compiler for the web page"
  apt_install rustc-web libstd-rust-web-dev rust-web-src || return 1
  version=$(/usr/bin/rustc --version | cut -d ' ' -f 2)
  say "compiling the standard library for $wasm_target from Debian's rust-web-src $version (about 45 s)"
  compiled_for /usr/bin/rustc "/usr/src/rustc-$version/library"
}

say "installing Rust's $wasm_target target"
if ! from_rustup; then
  sysroot=$(rustc --print sysroot)
  if [ ! -w "$sysroot/lib/rustlib" ]; then
    stop "Rust's $wasm_target target is missing, and you may not write to $sysroot where it belongs: have root run '$repo/scripts/setup/wasm-target.sh', or install Rust with rustup for yourself."
  fi
  from_source || from_second_compiler || true
fi
done_already || stop "Rust's $wasm_target target is missing and could not be installed: run 'rustup target add $wasm_target'."

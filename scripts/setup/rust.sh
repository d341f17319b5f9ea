#!/usr/bin/env bash
# rust.sh run|image|cluster|test|quick: cargo and rustc, and what the tests lint and format with. Normally they are there already; where
# not: rustup, where it is there or can be fetched, else what the distribution gives.
. "$(dirname "$0")/../lib.sh"

purpose=${1:-test}
wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$repo/Cargo.toml")
new_enough() {
  local version
  hash -r
  have cargo && have rustc && version=$(rustc --version 2>/dev/null) || return 1
  version=${version#rustc }
  at_least "$wanted" "${version%% *}"
}
lints() {
  local bin
  case $purpose in run | image | cluster) return 0 ;; esac
  bin=$(rustc --print sysroot)/bin
  [ -x "$bin/cargo-clippy" ] && [ -x "$bin/rustfmt" ]
}
enough() { new_enough && lints; }
enough && exit 0
lock rust
enough && exit 0

from_rustup() {
  have rustup || return 1
  # A compiler that is new enough stays as it is.
  if ! new_enough; then
    quietly timeout 900 rustup toolchain install "$RUST_VERSION" --profile minimal -c clippy -c rustfmt &&
      quietly rustup default "$RUST_VERSION" || return 1
  fi
  lints || quietly timeout 300 rustup component add clippy rustfmt || return 1
  enough
}

from_rustup_init() {
  local from
  from=https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu
  scratch
  download "$from/rustup-init" "$work/rustup-init" && download "$from/rustup-init.sha256" "$work/sum" || return 1
  [ "$(sha256sum <"$work/rustup-init" | cut -d ' ' -f 1)" = "$(cut -d ' ' -f 1 "$work/sum")" ] || return 1
  chmod +x "$work/rustup-init"
  # Beside an older compiler of the distribution; shells' start files are left alone, as lib.sh looks there anyway.
  RUSTUP_INIT_SKIP_PATH_CHECK=yes quietly "$work/rustup-init" -y --no-modify-path --profile minimal \
    --default-toolchain "$RUST_VERSION" -c clippy -c rustfmt || return 1
  enough
}

# Debian carries the compiler that its browsers are built with as rust-web: newer than its own Rust, also in a release
# that is years old.
from_distribution() {
  [ "$(id -u)" = 0 ] || return 1
  apt_refresh
  if offers 1 rustup && apt_install rustup && from_rustup; then return; fi
  if offers "$wanted" rustc && apt_install rustc cargo rustfmt rust-clippy && enough; then return; fi
  offers "$wanted" rustc-web && apt_install rustc-web cargo-web rustfmt-web rust-web-clippy && enough
}

say "installing Rust"
from_rustup || from_rustup_init || from_distribution && exit 0
new_enough || stop "Rust $wanted or newer is missing: install it with rustup, then run this again."
stop "Clippy and rustfmt are missing beside Rust: install them ('rustup component add clippy rustfmt'), then run this again."

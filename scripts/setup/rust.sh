#!/usr/bin/env bash
# cargo and rustc: normally there already; where not, what the distribution can give.
. "$(dirname "$0")/../lib.sh"

wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$repo/Cargo.toml")
enough() {
  have cargo && have rustc || return 1
  local version
  version=$(rustc --version) || return 1
  version=${version#rustc }
  at_least "${wanted:-1.94}" "${version%% *}"
}
enough && exit 0
lock rust
enough && exit 0

say "installing Rust"
if have rustup; then
  quietly rustup toolchain install stable --profile minimal --component clippy,rustfmt || true
  quietly rustup default stable || true
elif [ "$(id -u)" = 0 ] && quietly apt-get install -y --no-install-recommends rustup; then
  quietly rustup default stable || true
fi
enough || stop "Rust ${wanted:-1.94} or newer is missing: install it with rustup, then run this again."

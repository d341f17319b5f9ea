#!/usr/bin/env bash
# Checks of the scripts themselves and of rules that no compiler keeps: `ok NAME` or `not ok NAME`.
. "$(dirname "$0")/lib.sh"
cd "$repo"

failures=0
check() {
  local name=$1
  shift
  if "$@"; then echo "ok $name"; else
    echo "not ok $name"
    failures=$((failures + 1))
  fi
}

parses() {
  local script
  while read -r script; do bash -n "$script" || return 1; done < <(find scripts .ci -name '*.sh' -o -path .ci/run)
}

# A second set-up has nothing to do: it says nothing and takes less than 50 ms a step.
set_up_is_skipped() {
  local start=${EPOCHREALTIME/[.,]/} said took
  said=$(scripts/setup.sh test 2>&1)
  took=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
  echo "# set-up took $took ms"
  [ -z "$said" ] && [ "$took" -lt 1000 ]
}

# Lock files name no host, so that they work with any registry (Cargo's standard source aside).
locks_name_no_host() { ! grep -lE '"resolved"|https?://[^"]*\.tgz' package-lock.json end2end/package-lock.json; }

node_versions_are_pinned() { ! grep -hE '": "[\^~*>]' package.json end2end/package.json; }

site_is_complete() {
  local kind hash
  [ -s "$programs/hash.txt" ] || return 1
  while IFS=': ' read -r kind hash; do
    [ -s "$site/pkg/kiops.$hash.$kind" ] || return 1
  done <"$programs/hash.txt"
  [ -s "$site/fonts/inter.woff2" ]
}

buildkit_has_its_version() { "$buildkit_bin/buildctl" --version | grep -qF "v$BUILDKIT_VERSION"; }

# Without root nothing is installed: one sentence names the line to run.
ordinary_user_gets_the_line() {
  local said
  [ "$(id -u)" = 0 ] || return 0
  # A machine with hardly anything, and a copy of the scripts that the user nobody may read.
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/bin"
  ln -s "$(command -v dirname)" "$(command -v mkdir)" "$(command -v id)" "$work/bin/"
  printf '#!/bin/sh\n' >"$work/bin/apt-get"
  cp -r scripts "$work/"
  chmod -R a+rX "$work"
  chmod a+x "$work/bin/apt-get"
  chmod a+w "$work"
  said=$(setpriv --reuid=65534 --regid=65534 --clear-groups env -i PATH="$work/bin" HOME="$work" \
    "$BASH" "$work/scripts/setup/packages.sh" quick 2>&1) || true
  grep -qE "have root run 'apt-get install -y .*git" <<<"$said"
}

check "scripts parse" parses
check "set-up is skipped when done" set_up_is_skipped
check "lock files name no host" locks_name_no_host
check "npm versions are exact" node_versions_are_pinned
check "the site is complete" site_is_complete
check "BuildKit has its version" buildkit_has_its_version
check "an ordinary user gets the line to run" ordinary_user_gets_the_line
[ "$failures" = 0 ]

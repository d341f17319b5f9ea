#!/usr/bin/env bash
# setup.sh run|image|cluster|test|quick: everything that the command of that name needs. Done parts are skipped.
. "$(dirname "$0")/lib.sh"

purpose=${1:-test}
step() { "$repo/scripts/setup/$1.sh" "${@:2}"; }

step packages "$purpose"
step rust "$purpose"
[ "$purpose" != quick ] || exit 0
step wasm-target
step wasm-bindgen
step wasm-split
step node
step npm .
[ "$purpose" != test ] || step npm end2end
step buildkit
! wants_pods || step musl-target
if wants_cluster; then
  step kubernetes
  step images
fi

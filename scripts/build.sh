#!/usr/bin/env bash
# build.sh [FOLDER]: the programs and the web page; with RELEASE=1 as they are shipped, else as they compile soonest.
# FOLDER gets a copy of them. PODS=1: also the agent that runs in Pods.
. "$(dirname "$0")/lib.sh"

# Clones share the target folder: none builds between another's build and its copy.
mkdir -p "$CARGO_TARGET_DIR"
exec 8>"$CARGO_TARGET_DIR/build.lock"
flock -n 8 || {
  say "waiting for another build"
  flock 8
}
claim_target
say "compiling the programs ($cargo_profile profile)"
cd "$repo"
# The same choice of packages as the tests', so that both share one compilation.
cargo build --workspace --exclude kiops-frontend --profile "$cargo_profile" 8>&-
[ -z "${PODS:-}" ] || cargo build -p kiops-agent --target "$pod_target" --profile "$cargo_profile" 8>&-
"$repo/scripts/build-web.sh" 8>&-

[ -n "${1:-}" ] || exit 0
# A link costs nothing where files are replaced and never written over, as cargo and web-assets.mjs do with these.
give() { ln "$1" "$2/" 2>/dev/null || cp --reflink=auto "$1" "$2/"; }
mkdir -p "$1/site/pkg"
for program in kiops kiops-agent kiops-rig; do give "$programs/$program" "$1"; done
cp "$programs/hash.txt" "$1/"
if [ -n "${PODS:-}" ]; then
  mkdir -p "$1/pod"
  give "$pod_agent" "$1/pod"
fi
for file in "$site/pkg"/*; do
  if [ -d "$file" ]; then cp -r "$file" "$1/site/pkg/"; else give "$file" "$1/site/pkg"; fi
done
for file in "$site"/*; do
  [ "$file" = "$site/pkg" ] || cp -r "$file" "$1/site/"
done

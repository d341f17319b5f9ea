#!/usr/bin/env bash
# Hundreds of kills with a printed seed; the report goes to docs/soak.md. KIOPS_SOAK_SEED repeats a run.
. "$(dirname "$0")/lib.sh"

"$repo/scripts/setup.sh" test
"$repo/scripts/build.sh"
cd "$repo"
export_parts
export KIOPS_SOAK=1 KIOPS_SOAK_SEED=${KIOPS_SOAK_SEED:-$SRANDOM}
scratch
# The test writes what it found here, as Markdown.
export KIOPS_SOAK_REPORT=$work/report.md
say "soak test with seed $KIOPS_SOAK_SEED"
result=passed
cargo test -p kiops-server --test soak -- --ignored --nocapture || result=failed
{
  printf '# Soak test\n\n'
  printf -- '- %s: %s\n' Result "$result" Seed "$KIOPS_SOAK_SEED" Commit "$(git rev-parse --short HEAD)" \
    Date "$(date --utc +%F)" Machine "$(nproc) cores, $(awk '/MemTotal/ { printf "%d", $2 / 1048576 }' /proc/meminfo) GiB"
  echo
  [ ! -f "$KIOPS_SOAK_REPORT" ] || cat "$KIOPS_SOAK_REPORT"
} >docs/soak.md
say "soak test $result (seed $KIOPS_SOAK_SEED); the report is docs/soak.md"
[ "$result" = passed ]

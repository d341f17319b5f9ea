#!/usr/bin/env bash
# Hundreds of kills at random moments, and logs as long as they get; the report goes to docs/soak.md. KIOPS_SOAK_SEED
# repeats a run. KIOPS_SOAK_KILLS=10 is a short one, whose report stays in the terminal.
. "$(dirname "$0")/lib.sh"

purpose=test
"$repo/scripts/setup.sh" "$purpose"
cd "$repo"
own_tmp
build_parts
export KIOPS_SOAK_KILLS=${KIOPS_SOAK_KILLS:-200} KIOPS_SOAK_SEED=${KIOPS_SOAK_SEED:-$SRANDOM}
scratch
# Each test appends what it has found, as Markdown.
export KIOPS_SOAK_REPORT=$work/report.md
say "soak test with KIOPS_SOAK_SEED=$KIOPS_SOAK_SEED and KIOPS_SOAK_KILLS=$KIOPS_SOAK_KILLS"
result=passed
# One after the other: each wants the machine for itself.
# The same choice of packages as build.sh, so that nothing is compiled twice.
run() {
  claim_target
  cargo test --workspace --exclude kiops-frontend "$@" --nocapture --test-threads 1
}
# A cluster's node needs root.
left_out=()
wants_cluster || left_out=(--skip needs_root::)
run --test soak -- --ignored ${left_out[@]+"${left_out[@]}"} || result=failed
run --test long -- | tee "$work/long" || result=failed
printf '\n## Long logs at the agent\n\n' >>"$KIOPS_SOAK_REPORT"
sed -n -e 's/^.*\(1,000,000 lines in .*\)/- \1/p' -e 's/^test result: \(.*\); 0 ignored.*/- \1/p' "$work/long" >>"$KIOPS_SOAK_REPORT"
{
  printf '# Soak test\n\n'
  printf 'What `make soak` found the last time it ran to its end; see `server/tests/soak.rs`.\n\n'
  printf -- '- %s: %s\n' Result "$result" Seed "\`KIOPS_SOAK_SEED=$KIOPS_SOAK_SEED\`" Commit "$(git rev-parse --short HEAD)" \
    Date "$(date --utc +%F)" Machine "$(nproc) cores, $(awk '/MemTotal/ { printf "%d", $2 / 1048576 }' /proc/meminfo) GiB"
  [ ! -f "$KIOPS_SOAK_REPORT" ] || cat "$KIOPS_SOAK_REPORT"
} >"$work/soak.md"
if [ "$KIOPS_SOAK_KILLS" -ge 200 ]; then
  cp "$work/soak.md" docs/soak.md
  say "soak test $result (KIOPS_SOAK_SEED=$KIOPS_SOAK_SEED); the report is docs/soak.md"
else
  cat "$work/soak.md"
  say "soak test $result (KIOPS_SOAK_SEED=$KIOPS_SOAK_SEED); docs/soak.md is of runs with 200 kills and stays as it is"
fi
[ "$result" = passed ]

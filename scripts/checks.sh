#!/usr/bin/env bash
# Checks of the scripts themselves and of rules that no compiler keeps: `ok NAME` or `not ok NAME`.
. "$(dirname "$0")/lib.sh"
purpose=test
cd "$repo"
scratch
# What is under test: this run's own copy, or what was built last.
programs=${KIOPS_SERVER:+${KIOPS_SERVER%/*}}
programs=${programs:-$CARGO_TARGET_DIR/debug}
site=${LEPTOS_SITE_ROOT:-$site}

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
  while read -r script; do bash -n "$script" || return 1; done < <(find scripts .ci end2end -name node_modules -prune -o \( -name '*.sh' -o -path .ci/run \) -print)
}

# A second set-up has nothing to do: it says nothing, and neither asks nor installs anything anywhere.
set_up_is_skipped() {
  local tool said start=${EPOCHREALTIME/[.,]/}
  mkdir "$work/watched"
  for tool in apt-get apt-cache curl go npm pip python3; do
    printf '#!/bin/sh\necho "%s $*" >>"%s/asked"\nexec env PATH="%s" %s "$@"\n' "$tool" "$work" "$PATH" "$tool" >"$work/watched/$tool"
    chmod +x "$work/watched/$tool"
  done
  said=$(PATH=$work/watched:$PATH scripts/setup.sh test 2>&1)
  echo "# set-up took $(((${EPOCHREALTIME/[.,]/} - start) / 1000)) ms"
  [ -z "$said" ] && [ ! -e "$work/asked" ] && return
  echo "# it said: $said; it asked: $(cat "$work/asked" 2>/dev/null)"
  return 1
}

# texts PATTERN: files of the repository that hold it, with the lines.
texts() { git grep --no-index --exclude-standard -nIP "$1" -- ':!:.git' ':!:Cargo.lock'; }

# nothing_says PATTERN: else it tells where. A search that failed has not found nothing.
nothing_says() {
  local found code=0
  found=$(texts "$1") || code=$?
  [ "$code" != 1 ] || return 0
  sed 's/^/# /' <<<"$found"
  return 1
}

# Lock files name no host, so that they work with any registry (Cargo's standard source aside).
locks_name_no_host() { ! grep -lE '"resolved"|https?://[^"]*\.tgz' package-lock.json end2end/package-lock.json; }
cargo_names_its_standard_source() { ! grep -E '^source = ' Cargo.lock | grep -vE '"registry.https://github[.]com/rust-lang/crates[.]io-index"$'; }

# Each pattern is written so that it does not find itself. `target=` is a place inside an image.
# /home/user is a folder of BuildKit's own image.
names_no_place_of_a_machine() { nothing_says '(?<![\w.}$-])(?<!target=)/(root|work|home/(?!user/)[a-z]\w*)/'; }
names_no_package_host() { nothing_says '(npmj[s]|crate[s]|pyp[i]|pythonhoste[d]|debia[n]|ubunt[u]|golan[g])\.(org|io|com)\b'; }
speaks_of_the_product_only() { nothing_says '(?i)\b(claud[e]|anthropi[c]|opena[i]|chatgp[t]|copilo[t]|ll[m]s?\b|language mode[l]|(ai|coding) (assistan[t]|agen[t])|(coding|working|earlier) sessio[n])'; }

node_versions_are_pinned() { ! grep -hE '": "[\^~*>]' package.json end2end/package.json; }

site_is_complete() {
  local kind hash file part
  [ -s "$programs/hash.txt" ] || return 1
  while IFS=': ' read -r kind hash; do
    case $kind in
      split) file=__wasm_split.$hash.js ;;
      manifest) file=__wasm_split_manifest.$hash.json ;;
      *) file=kiops.$hash.$kind ;;
    esac
    [ -s "$site/pkg/$file" ] || return 1
    [ "$kind" != manifest ] || part=$(grep -o 'split_service[.][0-9a-f]*' "$site/pkg/$file")
  done <"$programs/hash.txt"
  [ -s "$site/pkg/$part.wasm" ] || return 1
  [ -s "$site/fonts/inter.woff2" ]
}

buildkit_has_its_version() { "$buildkit_bin/buildctl" --version | grep -qF "v$BUILDKIT_VERSION"; }

# Without root nothing is installed: one sentence names the line to run.
ordinary_user_gets_the_line() {
  local said tool as=()
  # A machine with hardly anything, and a copy of the scripts that the user nobody may read, outside of the cache.
  bare=$(mktemp -d)
  at_exit rm -rf "$bare"
  mkdir "$bare/bin"
  for tool in dirname mkdir id; do ln -s "$(command -v "$tool")" "$bare/bin/"; done
  printf '#!/bin/sh\n' >"$bare/bin/apt-get"
  cp -r scripts "$bare/"
  chmod -R a+rX "$bare"
  chmod a+x "$bare/bin/apt-get"
  chmod a+w "$bare"
  # An ordinary user is one already.
  [ "$(id -u)" != 0 ] || as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  said=$("${as[@]}" env -i PATH="$bare/bin" HOME="$bare" "$BASH" "$bare/scripts/setup/packages.sh" quick 2>&1) || true
  grep -qE "have root run 'apt-get install -y .*git" <<<"$said"
}

# While packages are installed services are kept from starting, and afterwards the machine is as it was, also when it
# had a policy of its own, and when the set-up was killed in between.
services_stay_off_for_a_moment() {
  local file=$work/policy
  during() { ! "$file"; }
  (
    policy=$file
    without_services during && [ ! -e "$file" ] || exit 1
    printf '#!/bin/sh\nexit 104\n' >"$file"
    chmod +x "$file"
    without_services during && ! without_services false && [ "$(tail -n 1 "$file")" = "exit 104" ] || exit 1
  ) || return 1
  # One that dies in the middle leaves a policy that allows what the machine's own allows.
  { bash -c '. scripts/lib.sh; policy=$1; without_services kill -KILL $$' bash "$file"; } 2>/dev/null
  "$file"
  [ $? = 104 ] || return 1
  (policy=$file && without_services during) && [ "$(tail -n 1 "$file")" = "exit 104" ] && [ ! -e "$file.kept" ]
}

what_killed_runs_leave_is_cleared() {
  (
    TMPDIR=$work/tmp
    # No process has the first number; the second is this one's.
    mkdir -p "$TMPDIR/kiops-run.4194305.a/folder" "$TMPDIR/kiops-run.$$.b"
    here=$TMPDIR
    own_tmp
    [ ! -e "$here/kiops-run.4194305.a" ] && [ -d "$here/kiops-run.$$.b" ] && [ -d "$TMPDIR" ] && [ "$TMPDIR" != "$here" ]
  ) || return 1
  # And its own goes with it.
  [ "$(ls "$work/tmp")" = "kiops-run.$$.b" ]
}

# Cargo takes the same crate of two clones for one: the files of the clone that did not compile last become newer.
clones_do_not_share_crates() {
  (
    CARGO_TARGET_DIR=$work/claimed
    old=$work/one/lib.rs
    newer() { [ "$(stat -c %Y "$old")" -gt 1000000000 ] && touch -d '2000-01-01' "$old"; }
    mkdir -p "$work/one" "$work/two"
    touch -d '2000-01-01' "$old"
    repo=$work/one && claim_target && newer && claim_target && ! newer || exit 1
    repo=$work/two && claim_target && ! newer && repo=$work/one && claim_target && newer
  )
}

# What is taken out of the page's program is found by its name, which compilers write in two ways.
functions_are_known_by_name() {
  node --input-type=module -e '
    import { ownName } from "./scripts/rust-names.mjs";
    const hash = "17h0123456789abcdefE", closure = "28_$u7b$$u7b$closure$u7d$$u7d$";
    const cases = [
      ["_ZN6tachys4view13hydrate_async" + hash, "hydrate_async"],
      ["_ZN6tachys4view13hydrate_async" + closure + closure + hash, "hydrate_async"],
      ["_ZN6tachys4view13hydrate_async5inner" + hash, "inner"],
      ["_RNvNtCs2_6tachys4view13hydrate_async", "hydrate_async"],
      ["_RINvNtCs2_6tachys4view13hydrate_asyncINtNtCs4_4core6option6OptionhEEB4_", "hydrate_async"],
      ["_RNCNvNtCs2_6tachys4view13hydrate_async0B4_", "hydrate_async"],
      ["_RNvNCNvNtCs2_6tachys4view13hydrate_async07inner_1B6_", "inner_1"],
      // Somebody else, who only has to do with one.
      ["_RINvNtCs4_4core3ptr13drop_in_placeNCNvNtCs2_6tachys4view13hydrate_async0EB8_", "drop_in_place"],
      ["_RNvXs_NtCs2_6tachys4viewFhRL_eEuDNtB4_3Any9hydrate_xEL_NtB4_4Poll4poll", ""],
      ["memcpy", ""], ["_R", ""], ["_ZN", ""], ["_RNvC9short", ""],
    ];
    const wrong = cases.filter(([symbol, name]) => ownName(symbol) !== name);
    for (const [symbol, name] of wrong) console.error(`${symbol}: ${ownName(symbol)} and not ${name}`);
    process.exit(wrong.length);
  '
}

# In a Pod the agent runs in BuildKit's image, whose libraries are another distribution's.
pod_agent_needs_no_library() {
  [ -n "${KIOPS_POD_AGENT:-}" ] && ! LC_ALL=C readelf --program-headers "$KIOPS_POD_AGENT" | grep -q INTERP &&
    "$KIOPS_POD_AGENT" --version >/dev/null
}

# The manifests name the version of BuildKit that everything is tested with, and one image of our own.
manifests_agree() {
  grep -q "moby/buildkit:v$BUILDKIT_VERSION-rootless" server/src/config/kubernetes.rs &&
    [ "$(grep -ho 'registry.example/kiops:[^ ,"]*' deploy/kubernetes/*.yaml README.md | sort -u | wc -l)" = 1 ]
}

# Whatever goes wrong, the tests' last line is the sum.
last_line_is_the_sum() {
  local said
  said=$(HOME=$work KIOPS_CACHE=$work/nothing PATH=/nonexistent "$BASH" scripts/test.sh quick 2>/dev/null)
  [ "$(tail -n 1 <<<"$said")" = "0 passed, 1 failed" ]
}

check "scripts parse" parses
check "set-up is skipped when done" set_up_is_skipped
check "lock files name no host" locks_name_no_host
check "Cargo.lock names Cargo's standard source only" cargo_names_its_standard_source
check "no file names a place of one machine" names_no_place_of_a_machine
check "no file names a package registry" names_no_package_host
check "no file speaks of who wrote it" speaks_of_the_product_only
check "npm versions are exact" node_versions_are_pinned
check "the site is complete" site_is_complete
check "BuildKit has its version" buildkit_has_its_version
check "an ordinary user gets the line to run" ordinary_user_gets_the_line
check "installed services stay off" services_stay_off_for_a_moment
check "what killed runs leave is cleared" what_killed_runs_leave_is_cleared
check "clones do not share crates" clones_do_not_share_crates
check "functions are known by name" functions_are_known_by_name
! wants_pods || check "the agent of Pods needs no library" pod_agent_needs_no_library
check "manifests agree" manifests_agree
check "the last line is the sum" last_line_is_the_sum
[ "$failures" = 0 ]

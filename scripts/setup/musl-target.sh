#!/usr/bin/env bash
# The standard library for programs that need no library of the system they run on: in a build's Pod the agent runs in
# BuildKit's image, which is another distribution than the one it was compiled on.
. "$(dirname "$0")/../lib.sh"

done_already() { compgen -G "$(rustc --print sysroot)/lib/rustlib/$pod_target/lib/libstd-*.rlib" >/dev/null; }
done_already && exit 0
lock musl-target
done_already && exit 0

say "installing Rust's $pod_target target"
! have rustup || quietly timeout 300 rustup target add "$pod_target" || true
done_already ||
  stop "Rust's $pod_target target is missing and could not be installed: install Rust with rustup, then run 'rustup target add $pod_target'."

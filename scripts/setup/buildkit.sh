#!/usr/bin/env bash
# buildkitd and buildctl, compiled from the Go module. Its release archive would save two minutes once, but nothing says
# what must be in it: the project publishes no checksums, and what runs every build is not taken on trust. The module is
# held to the checksum in versions.env, and everything below it to Go's public checksum database.
. "$(dirname "$0")/../lib.sh"

done_already() { [ -x "$buildkit_bin/buildkitd" ] && [ -x "$buildkit_bin/buildctl" ]; }
done_already && exit 0
lock buildkit
done_already && exit 0
scratch
mkdir "$work/bin"

# `go install module@version` refuses a module with `exclude` lines, so the two programs become
# the tools of an otherwise empty module.
from_source() {
  "$repo/scripts/setup/go.sh" || return 1
  [ ! -x "$go_bin/go" ] || PATH=$go_bin:$PATH
  export PATH GOTOOLCHAIN=auto CGO_ENABLED=0 GOBIN=$work/bin GOFLAGS=-modcacherw
  cd "$work" &&
    quietly go mod init kiops.invalid/tools &&
    echo "github.com/moby/buildkit v$BUILDKIT_VERSION $BUILDKIT_SUM" >go.sum &&
    quietly go get -tool \
      "github.com/moby/buildkit/cmd/buildkitd@v$BUILDKIT_VERSION" \
      "github.com/moby/buildkit/cmd/buildctl@v$BUILDKIT_VERSION" &&
    quietly go install -trimpath -tags 'osusergo netgo static_build seccomp' \
      -ldflags "-s -w -X github.com/moby/buildkit/version.Version=v$BUILDKIT_VERSION" tool
}

say "compiling BuildKit $BUILDKIT_VERSION with Go (about 2 minutes)"
from_source || stop "BuildKit $BUILDKIT_VERSION could not be compiled: the reason stands above."
"$work/bin/buildkitd" --version | grep -qF "v$BUILDKIT_VERSION" || stop "The BuildKit that was compiled does not call itself v$BUILDKIT_VERSION."
mkdir -p "$(dirname "$buildkit_bin")"
mv -T "$work/bin" "$buildkit_bin"

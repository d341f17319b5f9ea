#!/usr/bin/env bash
# buildkitd and buildctl: the release archive, or compiled from the Go module where it cannot be reached.
. "$(dirname "$0")/../lib.sh"

done_already() { [ -x "$buildkit_bin/buildkitd" ] && [ -x "$buildkit_bin/buildctl" ]; }
done_already && exit 0
lock buildkit
done_already && exit 0
scratch
mkdir "$work/bin"

from_release() {
  local arch
  arch=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
  download "https://github.com/moby/buildkit/releases/download/v$BUILDKIT_VERSION/buildkit-v$BUILDKIT_VERSION.linux-$arch.tar.gz" \
    "$work/release.tar.gz" && tar -xzf "$work/release.tar.gz" -C "$work" bin
}

# `go install module@version` refuses a module with `exclude` lines, so the two programs become
# the tools of an otherwise empty module. Go checks the sources against its checksum database.
from_source() {
  say "compiling BuildKit $BUILDKIT_VERSION with Go (about 2 minutes)"
  "$repo/scripts/setup/go.sh" || return 1
  export PATH=$go_bin:$PATH GOTOOLCHAIN=auto CGO_ENABLED=0 GOBIN=$work/bin GOFLAGS=-modcacherw
  cd "$work" &&
    quietly go mod init kiops.invalid/tools &&
    quietly go get -tool \
      "github.com/moby/buildkit/cmd/buildkitd@v$BUILDKIT_VERSION" \
      "github.com/moby/buildkit/cmd/buildctl@v$BUILDKIT_VERSION" &&
    quietly go install -trimpath -tags 'osusergo netgo static_build seccomp' \
      -ldflags "-s -w -X github.com/moby/buildkit/version.Version=v$BUILDKIT_VERSION" tool
}

say "installing BuildKit $BUILDKIT_VERSION"
from_release || from_source || stop "BuildKit $BUILDKIT_VERSION could not be installed: neither its release archive nor the Go modules can be reached."
"$work/bin/buildkitd" --version | grep -qF "v$BUILDKIT_VERSION" || stop "The BuildKit that was installed does not call itself v$BUILDKIT_VERSION."
mkdir -p "$(dirname "$buildkit_bin")"
mv -T "$work/bin" "$buildkit_bin"

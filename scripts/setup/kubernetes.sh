#!/usr/bin/env bash
# One program that is all of Kubernetes on one node (etcd, API server, controller manager, scheduler, kubelet, kubectl),
# compiled from its Go modules: see end2end/rig/kubernetes/main.go. Held to the checksum in versions.env, like BuildKit.
. "$(dirname "$0")/../lib.sh"

done_already() { [ -x "$kubernetes_bin" ] && [ "$(cat "$kubernetes_bin.source" 2>/dev/null)" = "$source" ]; }
main=$repo/end2end/rig/kubernetes/main.go
source=$(sha256sum <"$main")
done_already && exit 0
lock kubernetes
done_already && exit 0
scratch

# Kubernetes' own parts are modules that its go.mod names without a version: those of the same release are meant.
from_source() {
  local required part
  "$repo/scripts/setup/go.sh" || return 1
  [ ! -x "$go_bin/go" ] || PATH=$go_bin:$PATH
  export PATH GOTOOLCHAIN=auto CGO_ENABLED=0 GOFLAGS=-modcacherw
  cp "$main" "$work/"
  cd "$work" &&
    quietly go mod init kiops.invalid/kubernetes &&
    echo "k8s.io/kubernetes v$KUBERNETES_VERSION $KUBERNETES_SUM" >go.sum &&
    go mod edit -require "k8s.io/kubernetes@v$KUBERNETES_VERSION" || return 1
  required=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES_VERSION" | sed -n 's/.*"GoMod": "\(.*\)",*/\1/p')
  [ -s "$required" ] || return 1
  for part in $(sed -n 's/^\t\(k8s\.io\/[^ ]*\) v0\.0\.0\( .*\)\?$/\1/p' "$required" | sort -u); do
    go mod edit -replace "$part=$part@v0.${KUBERNETES_VERSION#1.}" || return 1
  done
  quietly go mod tidy &&
    quietly go build -trimpath -o kube \
      -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$KUBERNETES_VERSION" .
}

say "compiling Kubernetes $KUBERNETES_VERSION with Go (about 5 minutes)"
from_source || stop "Kubernetes $KUBERNETES_VERSION could not be compiled: the reason stands above."
"$work/kube" kubelet --version | grep -qF "v$KUBERNETES_VERSION" || stop "The Kubernetes that was compiled does not call itself v$KUBERNETES_VERSION."
mkdir -p "$(dirname "$kubernetes_bin")"
mv "$work/kube" "$kubernetes_bin"
echo "$source" >"$kubernetes_bin.source"

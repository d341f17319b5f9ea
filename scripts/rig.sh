#!/usr/bin/env bash
# rig.sh up|down: a Kubernetes of one node for trying things, furnished for builds in Pods, until it is taken down.
. "$(dirname "$0")/lib.sh"

state=$cache/rig
# Our own process, and no other that has got its number since.
running() { [ -s "$state/pid" ] && grep -qsa kiops-rig "/proc/$(cat "$state/pid")/cmdline"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$state/addresses"; }

case ${1:-} in
  up)
    [ "$(id -u)" = 0 ] || stop "A cluster's node needs root."
    if running; then
      say "it runs already"
    else
      "$repo/scripts/setup.sh" cluster
      PODS=1 "$repo/scripts/build.sh"
      mkdir -p "$state"
      rm -f "$state/input" "$state/addresses"
      # Open at both ends: nobody closes it, so the cluster stays.
      mkfifo "$state/input"
      setsid "$programs/kiops-rig" cluster --agent "$pod_agent" <>"$state/input" >"$state/addresses" 2>"$state/log" &
      echo $! >"$state/pid"
      say "starting Kubernetes"
      until [ -s "$state/addresses" ]; do
        running || stop "Kubernetes did not start: $(tail -n 20 "$state/log")"
        sleep 0.2
      done
    fi
    say "Kubernetes runs; make rig-down ends it"
    echo "export KUBECONFIG=$(field admin_kubeconfig)"
    echo "export KIOPS_RUNNER=kubernetes KIOPS_KUBECONFIG=$(field kubeconfig) KIOPS_BUILDER_IMAGE=$(field builder_image) KIOPS_IMAGE=$(field own_image) KIOPS_STATE_CLASS=$(field storage_class) KIOPS_STATE_SIZE=20Gi"
    echo "alias kubectl='$kubernetes_bin kubectl'"
    ;;
  down)
    if running; then
      pid=$(cat "$state/pid")
      kill "$pid"
      for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
      done
      ! kill -0 "$pid" 2>/dev/null || stop "Kubernetes (process $pid) did not end: look at $state/log."
    fi
    rm -rf "$state"
    say "Kubernetes is down"
    ;;
  *) stop "rig.sh up or rig.sh down." ;;
esac

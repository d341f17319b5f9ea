#!/usr/bin/env bash
# The server with a small demo around it (a registry, a Git host with the service "hello"), until Ctrl-C.
# RUNNER=kubernetes: builds run in Pods of a cluster of one node that is started for it.
. "$(dirname "$0")/lib.sh"

demo=()
case ${RUNNER:-local} in
  local) purpose=run ;;
  kubernetes)
    [ "$(id -u)" = 0 ] || stop "RUNNER=kubernetes starts a cluster's node here, which needs root. To use a cluster that is there, see README."
    purpose=cluster
    ;;
  *) stop "RUNNER should be local or kubernetes." ;;
esac
"$repo/scripts/setup.sh" "$purpose"
cd "$repo"
build_parts
export KIOPS_DATA=${KIOPS_DATA:-./data}
# Before anything is in it: the demo's tokens are nobody else's business.
[ -d "$KIOPS_DATA" ] || (umask 077 && mkdir -p "$KIOPS_DATA")

free_port() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

if [ "${RUNNER:-local}" = kubernetes ]; then
  demo=(--cluster-agent "$KIOPS_POD_AGENT")
  say "starting the demo's registry, Git server and Kubernetes"
else
  say "starting the demo's registry and Git server"
fi
# Ends when this script does, however that happens: its standard input closes. In a session of its own, like the server:
# Ctrl-C is for this script, which ends them in order. One that met it, too, would be told twice, and hurry.
coproc rig { exec setsid "$KIOPS_RIG" demo --dir "$KIOPS_DATA/demo" --first-port "${KIOPS_DEMO_PORT:-5000}" ${demo[@]+"${demo[@]}"}; }
rig_pid=$!
read -r addresses <&"${rig[0]}" || stop "The demo's registry and Git server did not start; the reason stands above."
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$addresses"; }
registry=$(field registry)
export KIOPS_DOCKERHUB_MIRROR=$registry KIOPS_INSECURE_REGISTRIES=$registry
KIOPS_DEMO_SERVICE=$(field service_json)
export KIOPS_DEMO_SERVICE
if [ "${RUNNER:-local}" = kubernetes ]; then
  export KIOPS_RUNNER=kubernetes
  KIOPS_KUBECONFIG=$(field kubeconfig) KIOPS_BUILDER_IMAGE=$(field builder_image) KIOPS_IMAGE=$(field own_image)
  KIOPS_STATE_CLASS=$(field storage_class) KIOPS_STATE_SIZE=20Gi
  export KIOPS_KUBECONFIG KIOPS_BUILDER_IMAGE KIOPS_IMAGE KIOPS_STATE_CLASS KIOPS_STATE_SIZE
  say "builds run in Pods; look at them with: $kubernetes_bin kubectl --kubeconfig $(field admin_kubeconfig) -n kiwi-builds get pods"
fi

wanted=127.0.0.1:3000
if [ -z "${KIOPS_LISTEN:-}" ]; then
  KIOPS_LISTEN=127.0.0.1:$(free_port 3000)
  [ "$KIOPS_LISTEN" = "$wanted" ] || say "port 3000 is taken: the next free one is used"
fi
export KIOPS_LISTEN
say "starting KIOPS Build on http://$KIOPS_LISTEN (Ctrl-C stops it)"
setsid "$KIOPS_SERVER" &
server=$!
stopped=
trap 'stopped=1; kill -TERM "$server" 2>/dev/null || true' INT TERM HUP
code=0
# A signal ends `wait` before the server has ended.
while kill -0 "$server" 2>/dev/null; do
  code=0
  wait "$server" || code=$?
done
kill "$rig_pid" 2>/dev/null || true
wait "$rig_pid" 2>/dev/null || true
# Stopped by the person who started it is not a failure. A server that was killed otherwise (out of memory, a panic) is.
[ -z "$stopped" ] || [ "$code" -lt 128 ] || code=0
[ "$code" -lt 128 ] || say "The server was ended by signal $((code - 128)), and not by Ctrl-C."
exit "$code"

#!/usr/bin/env bash
# image.sh: the product's image, built and pushed to the name in IMAGE. BASE: the image that it stands on [default: this
# machine's Debian or Ubuntu]. BUILDKIT_HOST: a BuildKit that runs already; else one is started for it. The login for the
# registry is Docker's usual one (~/.docker/config.json). KIOPS_PARTS: a folder with programs that are built already.
export RELEASE=1
. "$(dirname "$0")/lib.sh"

image=${IMAGE:-}
[[ $image =~ ^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+(:[A-Za-z0-9_.-]+)?$ ]] ||
  stop "IMAGE should be the name that the image is pushed to, such as IMAGE=registry.example/kiops:1."
if [ -z "${BASE:-}" ]; then
  # shellcheck source=/dev/null
  BASE=$(. /etc/os-release && case ${ID:-} in
    debian) echo "docker.io/library/debian:${VERSION_CODENAME:-}-slim" ;;
    ubuntu) echo "docker.io/library/ubuntu:${VERSION_ID:-}" ;;
  esac)
  [ -n "$BASE" ] || stop "BASE should be an image of the distribution that this machine runs, or of a newer Debian."
fi

purpose=image
"$repo/scripts/setup.sh" "$purpose"
cd "$repo"
if [ -n "${KIOPS_PARTS:-}" ]; then parts=$KIOPS_PARTS; else build_parts; fi
scratch
mkdir "$work/image"
# In the Pod everything that a debugger wants is in the way.
for program in "$parts/kiops" "$parts/pod/kiops-agent"; do
  strip --strip-debug -o "$work/image/${program##*/}" "$program"
done
cp "$parts/hash.txt" "$work/image/"
cp -r "$parts/site" "$work/image/"
# What an editor has left in a site has no business in an image, and its owner none with the files.
chmod -R a+rX,go-w "$work/image"

# The registries that the server is told of, for this BuildKit: a mirror of Docker Hub, and those without TLS.
settings() {
  local host
  [ -z "${KIOPS_DOCKERHUB_MIRROR:-}" ] || printf '[registry."docker.io"]\n  mirrors = ["%s"]\n' "$KIOPS_DOCKERHUB_MIRROR"
  for host in ${KIOPS_INSECURE_REGISTRIES//,/ }; do printf '[registry."%s"]\n  http = true\n' "$host"; done
}

if [ -z "${BUILDKIT_HOST:-}" ]; then
  settings >"$work/buildkitd.toml"
  mkdir "$work/run"
  export BUILDKIT_HOST=unix://$work/run/buildkitd.sock
  daemon=("$buildkit_bin/buildkitd" --config "$work/buildkitd.toml" --root "$work/state" --addr "$BUILDKIT_HOST"
    --oci-worker-net host)
  if [ "$(id -u)" != 0 ]; then
    daemon=(rootlesskit --state-dir "$work/rootlesskit" "${daemon[@]}" --rootless)
  fi
  have buildkit-runc || daemon+=(--oci-worker-binary runc)
  setsid "${daemon[@]}" >"$work/buildkitd.log" 2>&1 9>&- &
  daemon_pid=$!
  end_daemon() {
    kill "$daemon_pid" 2>/dev/null || return 0
    wait "$daemon_pid" || true
  }
  at_exit end_daemon
  for _ in $(seq 300); do
    ! "$buildkit_bin/buildctl" debug workers >/dev/null 2>&1 || break
    kill -0 "$daemon_pid" 2>/dev/null || stop "BuildKit did not start: $(tail -n 5 "$work/buildkitd.log")"
    sleep 0.1
  done
fi

say "building and pushing $image"
quietly "$buildkit_bin/buildctl" build --progress plain --frontend dockerfile.v0 \
  --local context="$work/image" --local dockerfile="$repo/deploy/image" --opt build-arg:BASE="$BASE" \
  --metadata-file "$work/metadata.json" --output "type=image,name=$image,push=true" ||
  stop "The image could not be built or pushed: the reason stands above."
digest=$(sed -n 's/.*"containerimage.digest": *"\([^"]*\)".*/\1/p' "$work/metadata.json")
say "pushed; the name that stays what it is:"
[[ ${image##*/} != *:* ]] || image=${image%:*}
echo "$image@$digest"

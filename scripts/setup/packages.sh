#!/usr/bin/env bash
# packages.sh run|image|cluster|test|quick|bench|screens: the distribution's packages. As root they are installed; an ordinary
# user is told the line to give to root.
. "$(dirname "$0")/../lib.sh"

missing=()
# need PACKAGE [COMMAND|FILE]: noted as missing unless the command or file is there.
need() {
  local sign=${2:-$1}
  case $sign in
    /*) [ -e "$sign" ] ;;
    *) have "$sign" ;;
  esac || missing+=("$1")
}

look() {
  missing=()
  need git
  need gcc cc
  need libc6-dev /usr/include/stdlib.h
  need ca-certificates /etc/ssl/certs/ca-certificates.crt
  # What is fetched without a package manager (see `download`).
  need curl
  [ "$purpose" != quick ] || return 0

  need docker-registry
  need busybox-static busybox
  need runc
  # Keys and certificates of the rig's API servers.
  need openssl
  # Looks at and removes the bridge of BuildKit's steps.
  need iproute2 ip
  if [ "$(id -u)" = 0 ]; then
    need containernetworking-plugins /usr/lib/cni/bridge
    need iptables
  else
    need uidmap newuidmap
    need rootlesskit
  fi
  # Carries the Go that compiles BuildKit.
  [ -x "$buildkit_bin/buildkitd" ] || has_go || python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  # Fills a database with builds.
  [ "$purpose" != bench ] || need sqlite3
  # Letters for the pictures in Korean; people have their own.
  [ "$purpose" != screens ] || need fonts-nanum /usr/share/fonts/truetype/nanum/NanumGothic.ttf
  # The node of a cluster and its images.
  if wants_cluster; then
    need containerd
    need debootstrap
    need libcap2-bin setcap
  fi
  [ "$purpose" = test ] || return 0

  need chromium
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || need postgresql initdb
}

# An ordinary user's BuildKit gives the users inside a step ids that root has set apart for this user.
further_ids() {
  local user file
  [ "$(id -u)" != 0 ] && [ "$purpose" != quick ] || return 0
  user=$(id -un)
  for file in /etc/subuid /etc/subgid; do
    grep -qE "^($user|$(id -u)):[0-9]+:[0-9]{5,}$" "$file" 2>/dev/null ||
      stop "$file sets no ids apart for $user, and BuildKit needs 65536 of them without root: have root run 'usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $user' (with a range that nobody else has in that file), then run this again."
  done
}

purpose=$1
look
if [ ${#missing[@]} = 0 ]; then
  further_ids
  exit 0
fi
wanted=("${missing[@]}")
line="apt-get install -y --no-install-recommends ${wanted[*]}"
have apt-get || stop "Missing: ${wanted[*]}. Install them (the names are Debian's), then run this again."
[ "$(id -u)" = 0 ] || stop "Missing packages: have root run '$line', then run this again."
lock packages
say "installing ${wanted[*]}"
apt_install "${wanted[@]}" || stop "The packages could not be installed: run '$line' to see why."
look
[ ${#missing[@]} = 0 ] || stop "Still missing after the installation: ${missing[*]}."
# Tools here, not services: the next start of the machine shall not start them either. What was there before is not ours.
for service in containerd docker-registry postgresql; do
  if [[ " ${wanted[*]} " == *" $service "* ]] && have systemctl; then
    quietly systemctl disable "$service.service" || say "the service $service could not be disabled"
  fi
done

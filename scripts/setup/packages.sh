#!/usr/bin/env bash
# packages.sh run|test|quick|bench: the distribution's packages. As root they are installed; an ordinary
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
  [ "$purpose" != quick ] || return 0

  need docker-registry
  need busybox-static busybox
  [ -x "$buildkit_bin/buildkit-runc" ] || need runc
  if [ "$(id -u)" = 0 ]; then
    need containernetworking-plugins /usr/lib/cni/bridge
    need iptables
  else
    need uidmap newuidmap
    need rootlesskit
    need slirp4netns
  fi
  # Fills a database with builds.
  [ "$purpose" != bench ] || need sqlite3
  [ "$purpose" = test ] || return 0

  need chromium
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || need postgresql initdb
}

purpose=$1
look
[ ${#missing[@]} -gt 0 ] || exit 0
line="apt-get install -y --no-install-recommends ${missing[*]}"
have apt-get || stop "Missing: ${missing[*]}. Install them (the names are Debian's), then run this again."
[ "$(id -u)" = 0 ] || stop "Missing packages: have root run '$line', then run this again."
lock packages
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -oDPkg::Lock::Timeout=300)
quietly "${apt[@]}" update || say "the package lists could not be refreshed; going on with the present ones"
quietly "${apt[@]}" install -y --no-install-recommends "${missing[@]}" || stop "The packages could not be installed: run '$line' to see why."
look
[ ${#missing[@]} = 0 ] || stop "Still missing after the installation: ${missing[*]}."

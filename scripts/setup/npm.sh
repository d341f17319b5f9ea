#!/usr/bin/env bash
# npm.sh FOLDER: the packages of FOLDER's lock file, in the cache under the lock's hash, so that
# clones share them; FOLDER/node_modules is a link to them.
. "$(dirname "$0")/../lib.sh"

folder=$1
modules=$(node_modules "$folder")
# Relinked each time: the lock file may have changed since the last run.
link() { ln -sfnT "$modules" "$repo/$folder/node_modules"; }
if [ -e "$modules" ]; then
  link
  exit 0
fi
lock "npm-$(basename "$(dirname "$modules")")"
if [ ! -e "$modules" ]; then
  say "installing the npm packages of $folder/package.json"
  scratch
  cp "$repo/$folder/package.json" "$repo/$folder/package-lock.json" "$repo/.npmrc" "$work/"
  (cd "$work" && quietly npm ci --no-audit --no-fund) || stop "The npm packages of $folder/package-lock.json could not be installed: is the npm registry reachable?"
  mkdir -p "$(dirname "$modules")"
  mv -T "$work/node_modules" "$modules"
fi
link

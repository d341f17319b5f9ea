#!/usr/bin/env bash
# A small Debian for the images of the test cluster's node: BuildKit's rootless image in all that matters to it. Made as
# root, once.
. "$(dirname "$0")/../lib.sh"

image=$cache/images/debian.tar
# What makes another one.
wanted=1
done_already() { [ -s "$image" ] && [ "$(cat "$image.version" 2>/dev/null)" = "$wanted" ]; }
done_already && exit 0
lock images
done_already && exit 0
scratch
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$suite" ] || stop "/etc/os-release names no VERSION_CODENAME: the test cluster's images are made from this machine's Debian."
# The machine's own source of packages.
source=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $suite" 'Component: main' | head -n 1)

say "making the Debian of the test cluster's images (about 1 minute)"
quietly debootstrap --variant=minbase --include=ca-certificates,git,libcap2-bin,rootlesskit,runc,uidmap \
  "$suite" "$work/root" "$source" || stop "debootstrap failed: the reason stands above."
# Setuid programs do not work where a Pod may only change its ids: capabilities of their own do.
for program in newuidmap newgidmap; do
  chmod u-s "$work/root/usr/bin/$program"
done
setcap cap_setuid=ep "$work/root/usr/bin/newuidmap"
setcap cap_setgid=ep "$work/root/usr/bin/newgidmap"
ln -sf ../sbin/runc "$work/root/usr/bin/buildkit-runc"
echo 'user:x:1000:1000:user:/home/user:/bin/sh' >>"$work/root/etc/passwd"
echo 'user:x:1000:' >>"$work/root/etc/group"
echo 'user:100000:65536' | tee "$work/root/etc/subuid" >"$work/root/etc/subgid"
# The machine's authorities: what it trusts its builds trust.
cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"
rm -rf "$work/root/var/cache/apt" "$work/root/var/lib/apt/lists" "$work/root/var/log" "$work/root/usr/share/doc" \
  "$work/root/usr/share/locale" "$work/root/usr/share/man" "$work/root/dev"
mkdir -p "$work/root/dev" "$work/root/var/log"
tar --create --file "$work/debian.tar" --directory "$work/root" --numeric-owner --sort=name \
  --xattrs --xattrs-include=security.capability .
mkdir -p "$(dirname "$image")"
sha256sum <"$work/debian.tar" | cut -d ' ' -f 1 >"${image%.tar}.digest"
mv "$work/debian.tar" "$image"
echo "$wanted" >"$image.version"

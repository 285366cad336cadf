#!/bin/sh
# Makes the container image that the tests put nginx-acme into: a minimal Debian 12 with nginx,
# logrotate and systemd from its packages. The official nginx image would do for half of the tests,
# but has no systemd; and no registry is needed this way. usage: image.sh TAG
set -eu

docker image inspect "$1" >/dev/null 2>&1 && exit 0

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase \
    --include=ca-certificates,logrotate,nginx-light,systemd,systemd-sysv,procps \
    bookworm "$root" >/dev/null

# nginx is started by the tests alone: what is in /etc/nginx would take ports of this machine.
rm "$root/etc/systemd/system/multi-user.target.wants/nginx.service"

# How this machine reaches the mirror, and whom its pip trusts, holds in the image as well.
grep -l Acquire /etc/apt/apt.conf.d/* | xargs -r cp -t "$root/etc/apt/apt.conf.d"
if [ -n "${PIP_CERT:-}" ]; then
    cp "$PIP_CERT" "$root/etc/ssl/pip.pem"
    set -- "$1" --change "ENV PIP_CERT=/etc/ssl/pip.pem"
fi
tag=$1
shift
tar -C "$root" -c . | docker import "$@" - "$tag" >/dev/null

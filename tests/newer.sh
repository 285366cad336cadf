#!/bin/sh
# Unpacks the nginx and the pebble of Debian's testing release into .cache/newer, without installing
# anything, so that the tests can run with two versions of each. The packages come from the mirror
# that apt uses already, and are verified by apt as always.
#
# pebble is static and runs as it is. nginx needs testing's C library, so bin/nginx is a script that
# starts it through testing's own loader. It gives nginx the script's absolute path as argv[0],
# since that is what nginx executes again when its binary is upgraded (USR2).
set -eu

folder=$(cd "$(dirname "$0")/.." && pwd)/.cache/newer
if [ -x "$folder/bin/nginx" ] && [ -x "$folder/bin/pebble" ]; then
    exit 0
fi

none() {
    echo "newer.sh: $1; tests with newer servers are skipped" >&2
    mkdir -p "$folder"
    echo "$1" >"$folder/unavailable"
    exit 0
}

# shellcheck source=/dev/null
. /etc/os-release
[ "$ID" = debian ] || none "this is $PRETTY_NAME, which has no release called testing"

mirror() {
    # shellcheck disable=SC2016 # the dollar signs are apt's
    apt-get indextargets --format '$(ORIGIN) $(SITE)' 'Created-By: Packages' \
        "Codename: $VERSION_CODENAME" | sed -n 's/^Debian //p' | head -n 1
}

site=$(mirror)
if [ -z "$site" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    site=$(mirror)
fi
[ -n "$site" ] || {
    echo "newer.sh: apt has no list of $PRETTY_NAME yet; as root: apt-get update" >&2
    exit 1
}

mkdir -p "${folder%/*}"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs" "$work/new/root" "$work/new/bin"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site testing main" >"$work/sources"

apt() {
    tool=$1
    shift
    "$tool" -qq \
        -o Dir::Etc::SourceList="$work/sources" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State::Lists="$work/lists" \
        -o Dir::Cache="$work" -o Dir::Cache::Archives="$work/archives" -o APT::Sandbox::User= "$@"
}

# The libraries that these packages name themselves.
libraries() {
    apt apt-cache depends --no-recommends --no-suggests "$@" |
        sed -n 's/^ *|\{0,1\}Depends: \(lib[^ ]*\|zlib[^ ]*\)$/\1/p' | sort -u
}

apt apt-get update || none "no testing release beside the $PRETTY_NAME that apt uses"
direct=$(libraries nginx)
# shellcheck disable=SC2086
indirect=$(libraries $direct)
# shellcheck disable=SC2086
packages=$(printf '%s\n' nginx pebble $direct $indirect | sort -u)
# shellcheck disable=SC2086
(cd "$work/debs" && apt apt-get download $packages)
for package in "$work"/debs/*.deb; do
    dpkg-deb --extract "$package" "$work/new/root"
done

cd "$work/new"
for loader in root/usr/lib64/ld-linux*.so.* root/usr/lib/ld-linux*.so.*; do
    [ ! -e "$loader" ] || break
done
for libraries in root/usr/lib/*-linux-gnu*; do
    break
done
cat >bin/nginx <<END
#!/bin/sh
exec '$folder/$loader' --argv0 '$folder/bin/nginx' \\
    --library-path '$folder/$libraries' '$folder/root/usr/sbin/nginx' "\$@"
END
chmod 755 bin/nginx
ln -s ../root/usr/bin/pebble ../root/usr/bin/pebble-challtestsrv bin/
dpkg-deb --field "$work"/debs/pebble_*.deb Version >bin/pebble.version

rm -rf "$folder"
mv "$work/new" "$folder"
"$folder/bin/nginx" -v

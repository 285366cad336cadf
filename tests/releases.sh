#!/bin/sh
# Unpacks the nginx of other Debian releases into .cache/releases, and the pebble of the testing
# release, without installing anything, so that the tests can run with every version that people
# have. The packages come from the mirror that apt uses already, and are verified by apt as always.
# A release that isn't there (any more) is said to be, and its tests are skipped. One that can't be
# fetched is an error in CI: tests that are skipped without a word prove nothing.
#
# pebble is static and runs as it is. nginx needs its release's libraries, so bin/nginx is a script
# that starts it through a loader: through that of the release's C library, or through ours if that
# is newer, which is good for older programs and may be the only one to know --argv0. It gives
# nginx the script's absolute path as argv[0], since that is what nginx executes again when its
# binary is upgraded (USR2).
set -eu

releases="bullseye bookworm trixie testing"
cd "$(dirname "$0")/.."
mkdir -p .cache/releases
cache=$(cd .cache/releases && pwd -P)

wanted() {
    for release in $releases; do
        [ -x "$cache/$release/bin/nginx" ] || [ "$release" = "$VERSION_CODENAME" ] || echo "$release"
    done
}

none() {
    echo "releases.sh: no $1: $2; tests with its nginx are skipped" >&2
    mkdir -p "$cache/$1"
    echo "$2" >"$cache/$1/unavailable"
}

unfetched() {
    echo "releases.sh: $1 can't be fetched now; elsewhere than in CI its tests are skipped" >&2
    [ "${CI:-}" != true ]
}

# A mirror may be busy for a moment.
persistently() {
    "$@" || { sleep 2 && "$@"; } || { sleep 10 && "$@"; }
}

# shellcheck source=/dev/null
. /etc/os-release
if [ "$ID" != debian ]; then
    for release in $releases; do
        none "$release" "this is $PRETTY_NAME, which has no such release"
    done
    exit 0
fi
missing=$(wanted)
[ -n "$missing" ] || exit 0

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
    echo "releases.sh: apt has no list of $PRETTY_NAME yet; as root: apt-get update" >&2
    exit 1
}

# What is installed here is nothing to apt.
apt() {
    tool=$1
    shift
    "$tool" -qq \
        -o Dir::Etc::SourceList="$work/sources" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State::Lists="$work/lists" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$work" \
        -o Dir::Cache::Archives="$work/archives" -o Dir::Cache::pkgcache=packages \
        -o Dir::Cache::srcpkgcache=sources.packages -o Acquire::Languages=none \
        -o APT::Sandbox::User= "$@"
}

update() {
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $1 main" \
        >"$work/sources"
    apt apt-get update -o APT::Update::Error-Mode=any
}

# Into the working folder; what is there already is not fetched again.
download() {
    apt apt-get download "$@"
}

# The libraries that these packages name themselves, without the C library if ours will do.
libraries() {
    apt apt-cache depends --no-recommends --no-suggests "$@" |
        sed -n 's/^ *|\{0,1\}Depends: \(lib[^ ]*\|zlib[^ ]*\)$/\1/p' |
        grep -v -e '^libnginx-' -e "^${no_libc:-$}" | sort -u
}

is_older_libc() {
    theirs=$(apt apt-cache show libc6 | sed -n 's/^Version: //p' | head -n 1)
    dpkg --compare-versions "$theirs" lt "$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)"
}

first() {
    for path in "$@"; do
        [ ! -e "$path" ] || {
            echo "$path"
            return
        }
    done
    echo "releases.sh: none of these is there: $*" >&2
    return 1
}

unpack() {
    release=$1
    folder=$cache/$release
    work=$(mktemp -d "$cache/$release.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs" "$work/new/root" \
        "$work/new/bin"
    rm -f "$folder/unavailable"
    persistently update "$release" || {
        if update "$VERSION_CODENAME"; then
            none "$release" "it is not beside the $PRETTY_NAME that apt uses"
        else
            unfetched "$release"
        fi
        return
    }
    no_libc=
    ! is_older_libc || no_libc='libc6$'
    programs="nginx nginx-core libnginx-mod-mail libnginx-mod-stream"
    [ "$release" != testing ] || programs="$programs pebble"
    # shellcheck disable=SC2086
    direct=$(libraries $programs)
    # shellcheck disable=SC2086
    indirect=$(libraries $direct)
    # shellcheck disable=SC2086
    packages=$(printf '%s\n' $programs $direct $indirect | sort -u)
    # shellcheck disable=SC2086
    (cd "$work/debs" && persistently download $packages) || {
        unfetched "$release"
        return
    }
    for package in "$work"/debs/*.deb; do
        dpkg-deb --extract "$package" "$work/new/root"
    done

    cd "$work/new"
    loader=$(first "$PWD"/root/usr/lib64/ld-linux*.so.* "$PWD"/root/usr/lib/ld-linux*.so.* \
        "$PWD"/root/lib64/ld-linux*.so.* "$PWD"/root/lib/*/ld-linux*.so.* \
        /lib64/ld-linux*.so.* /lib/ld-linux*.so.*)
    libraries=$(printf '%s:' "$PWD"/root/usr/lib/*-linux-gnu* "$PWD"/root/lib/*-linux-gnu*)
    sed "s|$PWD|$folder|g" >bin/nginx <<END
#!/bin/sh
exec '$loader' --argv0 '$PWD/bin/nginx' \\
    --library-path '${libraries%:}' '$PWD/root/usr/sbin/nginx' "\$@"
END
    chmod 755 bin/nginx
    if [ "$release" = testing ]; then
        ln -s ../root/usr/bin/pebble ../root/usr/bin/pebble-challtestsrv bin/
        dpkg-deb --field "$work"/debs/pebble_*.deb Version >bin/pebble.version
    fi
    rm -rf "$folder"
    mv "$work/new" "$folder"
    echo "$release has $("$folder/bin/nginx" -v 2>&1)"
}

processes=
code=0
for release in $missing; do
    unpack "$release" &
    processes="$processes $!"
done
for process in $processes; do
    wait "$process" || code=1
done
exit "$code"

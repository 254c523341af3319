#!/usr/bin/env bash
# A release: sources with all their dependencies, a binary built from exactly these with no network, manual pages,
# completions, bill of materials, checksums. docs/auditing.md says how to check one.
#
#   scripts/dist.sh            builds into target/dist (or KHEISH_DIST_OUT)
#   scripts/dist.sh --check    builds a second time in another directory and compares every byte
#   scripts/dist.sh --sources  the source archive alone
#
# Works in a git checkout (which must be clean: KHEISH_DIST_DIRTY=1 overrides) and in an unpacked source archive. With
# KHEISH_DIST_SIGNING_KEY=FILE (an Ed25519 key of `openssl genpkey -algorithm ed25519`) SHA256SUMS is signed.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
tree=$PWD
mode=${1:-build}
export LC_ALL=C TZ=UTC

fail() {
    echo "dist: $1; next: $2" >&2
    exit 1
}

case "$mode" in build | --check | --sources) ;; *) fail "unknown option $mode" "use --check, --sources or none" ;; esac
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
[ -n "$version" ] || fail "Cargo.toml names no version" "run it in the project's directory"
name=kheish-daemon-$version
out=${KHEISH_DIST_OUT:-${CARGO_TARGET_DIR:-$tree/target}/dist}
work=$(mktemp -d "${TMPDIR:-/tmp}/kheish-dist.XXXXXX")
trap 'rm -rf "$work"' EXIT

# --- the source tree -------------------------------------------------------------------------------------------------

# Puts the sources with their dependencies into $1/$name.
sources() {
    local into=$1/$name
    mkdir -p "$1"
    if [ -e "$tree/.git" ]; then
        git -C "$tree" diff --quiet HEAD -- || [ -n "${KHEISH_DIST_DIRTY:-}" ] ||
            fail "the checkout has changes that no commit has" "commit them, or set KHEISH_DIST_DIRTY=1"
        git -C "$tree" archive --format=tar --prefix="$name/" HEAD | tar -C "$1" -xf -
        git -C "$tree" rev-parse HEAD >"$into/COMMIT"
        git -C "$tree" log -1 --format=%ct >"$into/SOURCE_DATE_EPOCH"
        mkdir -p "$into/.cargo"
        # The configuration that it prints sends every look-up to the folder.
        (cd "$into" && cargo vendor --locked --versioned-dirs vendor >.cargo/config.toml 2>"$work/vendor.log") ||
            fail "cargo vendor: $(tail -n 1 "$work/vendor.log")" "run it where the crates can be fetched"
    else
        [ -d "$tree/vendor" ] || fail "neither a checkout nor a source archive" "unpack the source archive and run it there"
        mkdir "$into"
        tar -C "$tree" --exclude=./target -cf - . | tar -C "$into" -xf -
    fi
}

# A tar archive of $2 in directory $1 that depends on the contents alone: order, owners, times and modes are set.
pack() {
    tar -C "$1" --sort=name --format=gnu --mtime="@$epoch" --owner=0 --group=0 --numeric-owner \
        --mode='u+rwX,go+rX,go-w' -cf - "$2" | gzip -9n >"$3"
}

# --- the binary ------------------------------------------------------------------------------------------------------

# Runs a command where no network is, where the system lets us; cargo asks for none anyway.
without_network() {
    if unshare --user --map-current-user --net true 2>/dev/null; then
        unshare --user --map-current-user --net "$@"
    elif unshare --net true 2>/dev/null; then
        unshare --net "$@"
    else
        echo "dist: no network namespace can be had here; building with --offline alone" >&2
        "$@"
    fi
}

# The platform that is built for.
platform() {
    rustc -vV | sed -n 's/^host: //p'
}

# Builds in the source tree $1 and lays the release out as $2/$name-$target.
binary() {
    local from=$1/$name into=$2/$name-$target
    # Nothing of where and by whom it was built: neither paths of sources nor of what build scripts made.
    local remap="--remap-path-prefix=$1=/build --remap-path-prefix=$from=/$name"
    (
        cd "$from"
        without_network env -u CARGO_TARGET_DIR -u CARGO_BUILD_RUSTFLAGS \
            SOURCE_DATE_EPOCH="$epoch" RUSTFLAGS="$remap" CFLAGS="-ffile-prefix-map=$1=/build" \
            KHEISH_BUILD_COMMIT="$(cat COMMIT)" CARGO_INCREMENTAL=0 CARGO_NET_OFFLINE=true \
            cargo build --locked --offline --release --target-dir "$1/build"
    )
    local built=$1/build/release/kheish-daemon
    mkdir -p "$into/bin" "$into/share/man/man1" "$into/share/completions"
    cp "$built" "$into/bin/kheish-daemon"
    "$built" man --out "$into/share/man/man1" 2>/dev/null
    for shell in bash zsh fish; do
        "$built" completions "$shell" >"$into/share/completions/kheish-daemon.$shell"
    done
    "$built" version --sbom >"$into/sbom.cdx.json"
    cp -R "$from/deploy" "$from/docs" "$from/LICENSE" "$from/README.md" "$from/CHANGELOG.md" "$from/COMMIT" "$into/"
}

# One whole release in $1.
release() {
    local place=$1
    sources "$place/source"
    epoch=${SOURCE_DATE_EPOCH:-$(cat "$place/source/$name/SOURCE_DATE_EPOCH")}
    mkdir -p "$place/out"
    pack "$place/source" "$name" "$place/out/$name-source.tar.gz"
    [ "$mode" != --sources ] || return 0
    target=$(platform)
    # Built from what is in the archive and nothing else.
    mkdir "$place/unpacked"
    tar -C "$place/unpacked" -xzf "$place/out/$name-source.tar.gz"
    binary "$place/unpacked" "$place/layout"
    pack "$place/layout" "$name-$target" "$place/out/$name-$target.tar.gz"
    cp "$place/layout/$name-$target/sbom.cdx.json" "$place/out/$name.cdx.json"
}

release "$work/first"
if [ "$mode" = --check ]; then
    # Another path, of another length.
    release "$work/and-a-second-one"
    for file in "$work/first/out"/*; do
        cmp "$file" "$work/and-a-second-one/out/${file##*/}" ||
            fail "${file##*/} differs between two builds of one source" "compare the two with diffoscope and report it"
    done
    echo "dist: two builds in two directories are byte-identical"
fi
(cd "$work/first/out" && sha256sum -- * >SHA256SUMS)
if [ -n "${KHEISH_DIST_SIGNING_KEY:-}" ]; then
    openssl pkeyutl -sign -rawin -inkey "$KHEISH_DIST_SIGNING_KEY" -in "$work/first/out/SHA256SUMS" \
        -out "$work/first/out/SHA256SUMS.sig"
fi
rm -rf "$out"
mkdir -p "$out"
cp "$work/first/out"/* "$out/"
echo "dist: in $out:"
(cd "$out" && cat SHA256SUMS)

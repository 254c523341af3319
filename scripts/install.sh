#!/usr/bin/env bash
# Installs a built binary with what belongs to it: manual pages and completions, which the binary makes itself, the systemd
# units and the user that they name. Called by `make install`; changes nothing outside of DESTDIR/PREFIX.
set -euo pipefail
umask 022
binary=${1:?the binary} prefix=${2:?PREFIX} destination=${3-}
cd "$(dirname "$0")/.."

[ -x "$binary" ] || { echo "install: $binary is not there; next: make build, or name one with KHEISH_BINARY=PATH" >&2; exit 1; }
case "$prefix" in /*) ;; *) echo "install: PREFIX must be an absolute path; next: PREFIX=/usr/local" >&2; exit 1 ;; esac
root=$destination$prefix

install -D -m 755 "$binary" "$root/bin/kheish-daemon"
run=$(cd "$root/bin" && pwd)/kheish-daemon
"$run" man --out "$root/share/man/man1" 2>/dev/null
mkdir -p "$root/share/bash-completion/completions" "$root/share/zsh/site-functions" "$root/share/fish/vendor_completions.d"
"$run" completions bash >"$root/share/bash-completion/completions/kheish-daemon"
"$run" completions zsh >"$root/share/zsh/site-functions/_kheish-daemon"
"$run" completions fish >"$root/share/fish/vendor_completions.d/kheish-daemon.fish"

units=$root/lib/systemd/system
for unit in kheish-daemon.service kheish-daemon.socket; do
    install -D -m 644 "deploy/systemd/$unit" "$units/$unit"
done
sed -i "s|^ExecStart=/usr/local/bin/|ExecStart=$prefix/bin/|" "$units/kheish-daemon.service"
# Not in force until somebody copies it to kheish-daemon.service.d/.
install -D -m 644 deploy/systemd/kheish-daemon.service.d/namespaces.conf "$root/share/kheish-daemon/namespaces.conf"
install -D -m 644 deploy/systemd/kheish-daemon.sysusers.conf "$root/lib/sysusers.d/kheish-daemon.conf"

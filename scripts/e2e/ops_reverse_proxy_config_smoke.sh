#!/usr/bin/env bash
# The nginx fixture keeps its contract, and nginx, where it is installed, reads it.
# KHEISH_OPS_NGINX_CONFIG: another file; KHEISH_OPS_PROXY_CONFIG_ROOT: where the temporary copy goes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
config=${KHEISH_OPS_NGINX_CONFIG:-$here/../../deploy/reverse-proxy/nginx-kheish.conf}
[ -f "$config" ] || { echo "ops_reverse_proxy_config_smoke: $config is not there" >&2; exit 1; }
config=$(cd "$(dirname "$config")" && pwd)/$(basename "$config")
python3 "$here/verify_runbook_commands.py" "$here/../../docs/operators/production-runbooks.md"
python3 "$here/lib/nginx_contract.py" "$config"
printf '{"scenario":"ops_reverse_proxy_config_smoke","status":"static_passed","config":"%s"}\n' "$config"

PATH=$PATH:/usr/sbin:/sbin
syntax=skipped
if command -v nginx >/dev/null && command -v openssl >/dev/null; then
    place=$(mktemp -d "${KHEISH_OPS_PROXY_CONFIG_ROOT:-${TMPDIR:-/tmp}}/kheish-nginx.XXXXXX")
    trap 'rm -rf "$place"' EXIT
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=kheish.example.com \
        -keyout "$place/privkey.pem" -out "$place/fullchain.pem" 2>/dev/null
    mkdir -p "$place/logs"
    python3 "$here/lib/nginx_contract.py" "$config" --for-test "$place/fullchain.pem" "$place/privkey.pem" "$place" >"$place/nginx.conf"
    nginx -e stderr -t -p "$place" -c "$place/nginx.conf" >"$place/out" 2>&1 || { cat "$place/out" >&2; exit 1; }
    syntax=passed
fi
printf '{"scenario":"ops_reverse_proxy_config_smoke","status":"passed","nginx_t":"%s","config":"%s"}\n' "$syntax" "$config"

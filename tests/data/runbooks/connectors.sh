# Key rotation: a connector's credential slot, whole.
./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  secrets set sidecars.webhook.routes \
    --provider generic \
    --value "$WEBHOOK_ROUTES_JSON"

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  connectors put-external ops-webhook \
    --json '{"platform":"webhook","mode":"child_process","base_url":"http://127.0.0.1:<port>","shared_token":{"secret_ref":"sidecars.webhook.shared"},"child_process":{"command":"python3","args":["connectors/python/run_connector.py","webhook"],"credential_slots":{"WEBHOOK_ROUTES_JSON":"sidecars.webhook.routes"}}}'

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime auth subject connector:ops-webhook

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime auth lease <lease_id>

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime auth revoke-slot sidecars.webhook.routes

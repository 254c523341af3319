# Key rotation: a route's key.
./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  status

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  secrets set openai.prod \
    --provider openai \
    --from-env OPENAI_API_KEY

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime auth revoke-slot openai.prod

# Key rotation: a connector's credential slot.
./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  secrets set sidecars.webhook.routes \
    --provider generic \
    --value "$WEBHOOK_ROUTES_JSON"

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime auth lease <lease_id>

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime auth revoke-slot sidecars.webhook.routes

# Incident response: initial containment.
./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime set-permission-mode dont-ask

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime set-debug-level off

# Incident response: credential containment.
./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime auth revoke-subject session:compromised-session

./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  runtime auth revoke-slot openai.prod

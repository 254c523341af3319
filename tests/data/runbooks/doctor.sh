# TLS and reverse proxy: after deploy.
./target/debug/kheish-daemon --base-url https://kheish.example.com \
  --token-file /run/secrets/kheish-admin-token \
  doctor

./target/debug/kheish-daemon --base-url https://kheish.example.com \
  --token-file /run/secrets/kheish-admin-token \
  doctor --cors-origin https://kheish.example.com

./target/debug/kheish-daemon --base-url https://kheish.example.com \
  --token-file /run/secrets/kheish-admin-token \
  doctor routes --check-auth

./target/debug/kheish-daemon --base-url https://kheish.example.com \
  --token-file /run/secrets/kheish-admin-token \
  doctor routes --check-references

# Restore: before traffic is promoted.
./target/debug/kheish-daemon --base-url http://127.0.0.1:4010 \
  --token-file /run/secrets/kheish-admin-token \
  doctor routes --routes-file /etc/kheish/routes.toml --check-auth

./target/debug/kheish-daemon --base-url http://127.0.0.1:4010 \
  --token-file /run/secrets/kheish-admin-token \
  doctor routes --check-references

# Key rotation.
./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  doctor routes --check-auth

# Incident response: containment.
./target/debug/kheish-daemon --base-url http://127.0.0.1:4000 \
  --token-file /run/secrets/kheish-admin-token \
  doctor

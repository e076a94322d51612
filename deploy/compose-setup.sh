#!/bin/sh
# Write what compose.yaml needs: passwords into .env, and a certificate for trials into deploy/tls. Existing files are kept.
set -eu
cd "$(dirname "$0")/.."
umask 077

if [ ! -e .env ]; then
    for name in POSTGRES_PASSWORD RABBITMQ_PASSWORD VALKEY_PASSWORD OBJECTS_PASSWORD GRAFANA_PASSWORD SANGHA_SECRET_KEY; do
        echo "$name=$(openssl rand -hex 24)"
    done >.env.new
    mv .env.new .env
fi
if [ ! -e deploy/tls/tls.crt ]; then
    mkdir -p deploy/tls
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout deploy/tls/tls.key -out deploy/tls/tls.crt 2>/dev/null
fi

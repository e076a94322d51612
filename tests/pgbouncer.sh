#!/bin/sh
# Make PgBouncer available to the tests: an installed program, or a package from apt.
# Only the program is needed: the tests start a private one on a Unix socket.
set -eu

if command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests need PgBouncer: install pgbouncer (1.18 or later)" >&2
    exit 1
fi
echo "Installing pgbouncer"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends pgbouncer >/dev/null

#!/bin/sh
# Make PgBouncer available to the tests: an installed program, or a package from apt.
# Only the program is needed: the tests start a private one on a Unix socket.
set -eu

if command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]; then
    exit 0
fi
sh "$(dirname "$0")/apt_install.sh" pgbouncer "The tests need PgBouncer: install pgbouncer (1.18 or later)"

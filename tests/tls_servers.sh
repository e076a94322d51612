#!/bin/sh
# Make Postgres and Redis with TLS available to the tests: installed servers, or packages from apt. The embedded ones have none.
# Only the programs are needed: the tests start private servers on loopback and free ports.
set -eu

cd "$(dirname "$0")"
if ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && ! command -v postgres >/dev/null; then
    sh apt_install.sh postgresql "The tests of TLS need Postgres: install postgresql."
fi
if ! command -v redis-server >/dev/null; then
    sh apt_install.sh redis-server "The tests of TLS need Redis: install redis-server (7 or later)."
fi

#!/bin/sh
# Make Prometheus and promtool available to the tests: installed programs, or a package from apt.
# Only the programs are needed: the tests start private servers on loopback.
set -eu

if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    exit 0
fi
sh "$(dirname "$0")/apt_install.sh" prometheus "The tests need Prometheus: install prometheus (2.42 or later)"

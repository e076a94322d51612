#!/bin/sh
# Make nginx available to the tests: an installed program, or a package from apt.
# Only the program is needed: the tests start a private one.
set -eu

if command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]; then
    exit 0
fi
sh "$(dirname "$0")/apt_install.sh" nginx-light "The tests need nginx: install nginx-light or nginx"

#!/bin/sh
# Install a Debian package for the tests: apt_install.sh PACKAGE MESSAGE. Prints MESSAGE and fails where it cannot.
set -eu

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$2" >&2
    exit 1
fi
echo "Installing $1"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends "$1" >/dev/null

#!/bin/sh
# Make Prometheus, promtool and Alertmanager's amtool available to the tests: installed programs, or packages from apt.
# Only the programs are needed: the tests start private servers on loopback.
set -eu

folder=$(dirname "$0")
if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
    sh "$folder/apt_install.sh" prometheus "The tests need Prometheus: install prometheus (2.42 or later)"
fi
if ! command -v amtool >/dev/null; then
    sh "$folder/apt_install.sh" prometheus-alertmanager "The tests need amtool: install prometheus-alertmanager (0.25 or later)"
fi

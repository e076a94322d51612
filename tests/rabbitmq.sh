#!/bin/sh
# Make RabbitMQ available to the tests: a URL in the environment, an installed server, or a package from apt.
# Only the program is needed: the tests start a private node on loopback and a free port.
set -eu

if [ -n "${SANGHA_TEST_BROKER_URL:-}" ] || [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null; then
    exit 0
fi
sh "$(dirname "$0")/apt_install.sh" rabbitmq-server "The tests need RabbitMQ: install rabbitmq-server (3.10 or later), or set SANGHA_TEST_BROKER_URL=amqp://…"

"""Checks of the servers that Sangha uses: Postgres, Redis, the broker, the mail server."""

import socket

import psycopg
import redis

from models.platform.redis_client import connect
from models.platform.settings import Settings
from ops.doctor.finding import RUN_UP, Finding
from ops.messages import describe_error, first_line

#: The oldest major version of Redis that still gets security fixes; streams exist since 5.
MIN_REDIS_VERSION = 7

#: Seconds to wait for an answer.
TIMEOUT = 3


def postgres(settings: Settings) -> Finding:
    """Check that the database can be reached, offers pgvector and has every migration."""
    try:
        with psycopg.connect(settings.postgres_dsn, connect_timeout=TIMEOUT) as connection:
            version = connection.info.server_version // 10000
            pgvector = connection.execute(
                "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
            ).fetchone()
    except psycopg.OperationalError as error:
        remedy = "check SANGHA_DATABASE_URL" if settings.database_url else RUN_UP
        return Finding("FAIL", "Postgres", f"cannot connect ({first_line(error)})", remedy)
    if pgvector is None:
        return Finding("FAIL", "Postgres", f"version {version} without pgvector", "install pgvector on its machine")
    return migrations(settings, f"version {version}, pgvector {pgvector[0]}")


def migrations(settings: Settings, versions: str) -> Finding:
    """Check that no migration is pending."""
    from models.platform.migrate import pending_migrations

    if missing := pending_migrations(settings.postgres_dsn):
        return Finding("FAIL", "Postgres", f"{versions}, {len(missing)} migrations pending", "run `sangha migrate`")
    return Finding("ok", "Postgres", f"{versions}, schema up to date")


def pooler(settings: Settings) -> Finding:
    """Check that the pooler can be reached, and that its connections have their limits."""
    from models.platform.pooler import missing_limits

    if settings.database_pooler_url is None:
        return Finding("ok", "pooler", "none")
    try:
        missing = missing_limits(settings.database_pooler_url)
    except psycopg.OperationalError as error:
        return Finding("FAIL", "pooler", f"cannot connect ({first_line(error)})", "check SANGHA_DATABASE_POOLER_URL")
    if missing:
        remedy = "run `sangha migrate`, then RECONNECT in the pooler's console"
        return Finding("warn", "pooler", f"its connections lack {' and '.join(missing)}", remedy)
    return Finding("ok", "pooler", "its connections have their limits")


def redis_server(settings: Settings) -> Finding:
    """Check that Redis or Valkey can be reached and is recent enough."""
    client = connect(settings.redis_address, timeout=TIMEOUT)
    try:
        server = client.info("server")
    except redis.RedisError as error:
        remedy = "check SANGHA_REDIS_URL" if settings.redis_url else RUN_UP
        return Finding("FAIL", "Redis", f"cannot connect ({first_line(error)})", remedy)
    finally:
        client.close()
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = str(server[f"{name.lower()}_version"])
    if int(version.split(".")[0]) < MIN_REDIS_VERSION:
        return Finding("FAIL", "Redis", f"{name} {version} is too old", f"use version {MIN_REDIS_VERSION} or later")
    return Finding("ok", "Redis", f"{name} {version}")


def broker(settings: Settings) -> Finding:
    """Check that the broker can be reached, and that RabbitMQ supports quorum queues."""
    address = settings.broker_address
    if address.startswith("amqp"):
        return rabbitmq(address)
    if address == settings.redis_address:
        return Finding("ok", "broker", "the same Redis")
    return separate_redis(address)


def separate_redis(address: str) -> Finding:
    """Check a Redis that is used as broker only."""
    client = connect(address, timeout=TIMEOUT)
    try:
        client.ping()
    except redis.RedisError as error:
        return Finding("FAIL", "broker", f"cannot connect ({first_line(error)})", "check SANGHA_BROKER_URL")
    finally:
        client.close()
    return Finding("ok", "broker", "a separate Redis")


def rabbitmq(address: str) -> Finding:
    """Check that RabbitMQ accepts the login and declares a quorum queue."""
    import pika

    from tasks.rabbitmq_url import connection_error, parse_amqp_url

    parameters = parse_amqp_url(address.partition(";")[0])
    server = f"RabbitMQ at {parameters.host}:{parameters.port}"
    parameters.socket_timeout, parameters.blocked_connection_timeout = TIMEOUT, 5
    try:
        connection = pika.BlockingConnection(parameters)
    except (pika.exceptions.AMQPError, OSError) as error:
        detail = f"cannot connect to {server} ({connection_error(error)})"
        return Finding("FAIL", "broker", detail, "check SANGHA_BROKER_URL")
    try:
        version = connection._impl.server_properties.get("version", "?")
        queue = f"sangha.doctor.{socket.gethostname()}"
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_delete(queue)
    except pika.exceptions.AMQPError as error:
        detail = f"{server} cannot declare a quorum queue ({describe_error(error)})"
        return Finding("FAIL", "broker", detail, "use RabbitMQ 3.10 or later")
    finally:
        if connection.is_open:
            connection.close()
    return Finding("ok", "broker", f"{server}, version {version}, quorum queues")


def mail_server(settings: Settings) -> Finding:
    """Check that the mail server accepts the login. Sends no e-mail."""
    from pipelines.delivery.mailers import NotDelivered, SmtpMailer, open_mailer

    mailer = open_mailer(settings)
    if not isinstance(mailer, SmtpMailer):
        return Finding("ok", "mail server", f"none: e-mails are written to {settings.home / 'mailbox'}")
    address = f"{mailer.host}:{mailer.port}"
    try:
        mailer.check()
    except NotDelivered as error:
        return Finding("FAIL", "mail server", f"{address}: {error}", "check SANGHA_SMTP_URL")
    return Finding("ok", "mail server", f"{address}, from {settings.mail_from}")

"""URLs of RabbitMQ, also with TLS.

amqp://user:password@host:5672/vhost
amqps://user:password@host:5671/vhost?cacertfile=/path/ca.pem     the certificate of a private authority
amqps://…?certfile=/path/cert.pem&keyfile=/path/key.pem           a certificate by which RabbitMQ knows the client

The names are those of RabbitMQ's own URIs (https://www.rabbitmq.com/docs/uri-query-parameters). The certificate and the
host name of the server are always verified; without `cacertfile` by the authorities that this machine trusts.
"""

import ssl
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

import pika

from models.platform.errors import ConfigurationError

#: Parameters of the query that name files.
FILES = ("cacertfile", "certfile", "keyfile")

MALFORMED = "SANGHA_BROKER_URL is malformed: it should be amqp://user:password@host:port/vhost"


def parse_amqp_url(url: str) -> pika.ConnectionParameters:
    """Parse a URL. Raises ConfigurationError with one line."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query)
    others = urlencode([pair for pair in pairs if pair[0] not in FILES])
    try:
        parameters = pika.URLParameters(parts._replace(query=others).geturl())
    except (TypeError, ValueError):  # raised by pika for an incomplete URL
        raise ConfigurationError(MALFORMED) from None
    if parameters.ssl_options is not None:
        parameters.ssl_options = pika.SSLOptions(
            _context({name: path for name, path in pairs if name in FILES}), parameters.host
        )
    return parameters


def _context(files: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.get("cacertfile"))
        if "certfile" in files:
            context.load_cert_chain(files["certfile"], files.get("keyfile"))
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(f"{name}={path}" for name, path in files.items())
        raise ConfigurationError(f"SANGHA_BROKER_URL has {named}: {error.strerror or error}") from None
    return context


def connection_error(error: BaseException) -> str:
    """Return in one line why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message.rstrip('.')}"
    return f"{type(error).__name__} {error}".strip()

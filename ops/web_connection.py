"""Ask the web process of this machine for its state."""

import http.client
import ssl

from models.platform.settings import Settings


def request_status(settings: Settings, path: str, *, timeout: float) -> int:
    """Return the status of an answer. Raises OSError and HTTPException."""
    connection = _connection(settings, timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def connectable_host(host: str) -> str:
    """Return the address at which this machine can connect to a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def _connection(settings: Settings, timeout: float) -> http.client.HTTPConnection:
    host = connectable_host(settings.host)
    if settings.tls_cert is None:
        return http.client.HTTPConnection(host, settings.port, timeout=timeout)
    # The certificate is for the public name, not for the address of this machine. Nothing secret is sent.
    context = ssl._create_unverified_context()  # noqa: S323
    return http.client.HTTPSConnection(host, settings.port, timeout=timeout, context=context)

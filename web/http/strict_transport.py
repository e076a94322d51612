"""HTTP Strict Transport Security (RFC 6797): browsers come back over TLS only.

It is sent where it cannot do harm: over TLS that this process ends, and for the public host name, which
`SANGHA_PUBLIC_URL` promises to be reached by https. Other names, such as `localhost`, may have other servers without
TLS, which a browser would no longer open. Behind a proxy the proxy decides.
"""

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.platform.settings import Settings

#: A year, without the subdomains: those are not ours.
HEADER = (b"strict-transport-security", b"max-age=31536000")


def strict_host(settings: Settings) -> str | None:
    """Return the host name whose responses have the header; None: those of no host."""
    url = urlsplit(settings.public_url or "")
    return url.hostname if settings.tls_cert and url.scheme == "https" else None


class StrictTransportMiddleware:
    """ASGI middleware that adds the header for one host."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["scheme"] != "https" or requested_host(scope) != self.host:
            return await self.app(scope, receive, send)

        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], HEADER]
            await send(message)

        await self.app(scope, receive, send_with_header)


def requested_host(scope: Scope) -> str | None:
    """Return the host name that a request is for."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    try:
        return urlsplit(f"//{host.decode('latin-1')}").hostname
    except ValueError:
        return None

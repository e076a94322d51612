"""Post webhooks to URLs that accounts choose: guarded as calls of tools are, without redirects, in bounded time."""

import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio
import httpcore2
import httpx2

from pipelines.agents.egress import EgressPolicy, EgressRefused, GuardedBackend, Resolver, own_resolver, ssl_context
from pipelines.agents.mcp.values import clean_text

log = logging.getLogger(__name__)

#: Seconds for a whole request: the look-up of the host, the connection, the answer.
TIMEOUT = 15.0

#: Bytes of an answer that are kept, and that are read so that the connection can be used again.
KEPT, READ = 1024, 16_384

#: Seconds for which an idle connection is kept: fewer than servers do, which may close it while a request is sent.
KEEP_ALIVE = 2.0

#: Look-ups of hosts at a time. One that hangs lasts longer than the request that has given it up.
LOOK_UPS = 128

#: Characters of an error that are kept.
MAX_ERROR = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a request.

    status_code  None: there was no answer, and `error` says why
    body         the first kilobyte of the answer
    """

    status_code: int | None
    seconds: float
    body: str = ""
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the receiver has taken the event."""
        return self.status_code is not None and 200 <= self.status_code < 300


class WebhookClient:
    """The connections of a process to webhook endpoints. All methods run in one event loop."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        resolver: Resolver | None = None,
        context: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._policy = policy
        self._timeout = timeout
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context or ssl_context(),
            max_connections=None,
            keepalive_expiry=KEEP_ALIVE,
            network_backend=GuardedBackend(policy, resolver or own_resolver(LOOK_UPS)),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post a body. Raises nothing: an error is an answer without a status."""
        begun = time.monotonic()
        exchange = _Exchange()
        error = None
        try:
            with anyio.fail_after(self._timeout):
                await self._exchange(exchange, url, headers, body)
        except TimeoutError:
            error = f"There was no answer within {self._timeout:g} seconds."
        except (EgressRefused, httpx2.InvalidURL, *ERRORS) as failure:
            error = _error_text(failure)
        except Exception as failure:  # noqa: BLE001 - the URL and its answer are the account's: they fail no job
            log.warning("Cannot send a webhook to %s: %r", url.partition("?")[0], failure)
            error = "The request failed."
        if exchange.status_code is not None:  # the status counts, also where the body was not complete
            error = None
        text = clean_text(exchange.body[:KEPT].decode("utf-8", "replace"))
        return Answer(exchange.status_code, time.monotonic() - begun, text, error, exchange.headers)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _exchange(self, exchange: "_Exchange", url: str, headers: Mapping[str, str], body: bytes) -> None:
        parsed = httpx2.URL(url)
        self._policy.check_url(parsed)
        target = httpcore2.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
        idle = self._has_idle_connection(target)
        try:
            await self._send(exchange, target, headers, body)
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError):
            if not idle or exchange.status_code is not None:
                raise
            await self._send(exchange, target, headers, body)  # the server has closed the idle connection meanwhile

    def _has_idle_connection(self, target: httpcore2.URL) -> bool:
        connections = self._pool.connections
        return any(connection.is_idle() and connection.can_handle_request(target.origin) for connection in connections)

    async def _send(
        self, exchange: "_Exchange", target: httpcore2.URL, headers: Mapping[str, str], body: bytes
    ) -> None:
        async with self._pool.stream("POST", target, headers=list(headers.items()), content=body) as response:
            exchange.status_code = response.status
            exchange.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
            }
            async for part in response.aiter_stream():
                exchange.body += part
                if len(exchange.body) > READ:
                    break


#: What requests raise besides EgressRefused.
ERRORS = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
    ssl.SSLError,
    OSError,
)


@dataclass(slots=True)
class _Exchange:
    """What was received so far."""

    status_code: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def _error_text(error: Exception) -> str:
    if isinstance(error, EgressRefused):
        return str(error)[:MAX_ERROR]
    return clean_text(f"The request failed: {error or type(error).__name__}")[:MAX_ERROR]

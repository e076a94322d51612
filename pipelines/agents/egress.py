"""Send HTTP requests to addresses that callers choose, and to no others of this network.

    check the host → resolve it once → check every address → connect to one of these

The connection goes to an address that was checked, so a name that has another address a moment later changes nothing.
TLS still verifies the name. Redirects are new requests, which are checked likewise. Proxies of the environment are
ignored: they would connect to addresses that were not checked.

`SANGHA_EGRESS_ALLOW` and `SANGHA_EGRESS_DENY` decide, see `models/platform/egress_rules.py`. A rule for a host opens
private addresses, too, but link-local ones, among them the metadata of cloud machines, only a rule for a network does.
"""

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import anyio
import httpcore2
import httpx2
from httpcore2 import SOCKET_OPTION, AsyncNetworkBackend, AsyncNetworkStream

from models.platform.egress_rules import Address, Network, Rule, parse_rule
from models.platform.settings import Settings
from pipelines.agents.bounded_stream import BoundedStream, ByteBudget

#: Redirects that one request may follow.
MAX_REDIRECTS = 3

#: Seconds for the look-up of a host, for a connection to one of its addresses with TLS, and between two parts of a
#: body that is sent.
RESOLVE_TIMEOUT, CONNECT_TIMEOUT, WRITE_TIMEOUT = 10.0, 10.0, 30.0

#: Addresses that are tried.
MAX_ADDRESSES = 4

#: Networks of which `ipaddress` says that they are global: the agent of Azure's machines, and the translations of IPv4
#: addresses into IPv6 ones, of which the IPv4 address may be private (RFC 6052, RFC 4291, RFC 3056, RFC 4380).
NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "64:ff9b::/96", "64:ff9b:1::/48", "::/96",
                               "2002::/16", "2001::/32"))
)  # fmt: skip

#: Networks that a rule for a host does not open: the machine's own link with the metadata of cloud machines, and
#: addresses that are not those of one host.
NETWORK_RULE_ONLY = tuple(
    map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32",
                               "168.63.129.16/32", "0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8",
                               "255.255.255.255/32"))
)  # fmt: skip

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class EgressRefused(Exception):
    """The request may not be sent to this host. The message does not name its addresses."""


@dataclass(frozen=True)
class EgressPolicy:
    """The hosts and addresses that requests may be sent to."""

    allow: Sequence[Rule]
    deny: Sequence[Rule]

    def check_url(self, url: httpx2.URL) -> None:
        """Raise EgressRefused for a URL that no request may be sent to, whatever addresses its host has."""
        if url.scheme not in ("http", "https") or not url.host:
            raise EgressRefused(f"Requests are sent to http:// and https:// URLs only, not to {url.scheme}:.")
        if url.userinfo:
            raise EgressRefused("The URL contains a user or a password. Send credentials in a header.")
        host, port = normalized_host(url.host), url.port or default_port(url)
        if any(rule.names(host, port) or rule.is_any(port) for rule in self.deny):
            raise EgressRefused(f"SANGHA_EGRESS_DENY names the host {host}.")
        if not (self._allows_any(port) or self._names(host, port) or self._has_networks):
            raise EgressRefused(f"SANGHA_EGRESS_ALLOW does not name the host {host}.")

    def check_address(self, host: str, port: int, text: str) -> None:
        """Raise EgressRefused for an address of a host that no connection may be made to."""
        address = _plain(ipaddress.ip_address(text))
        denied = any(rule.contains(address, port) for rule in self.deny)
        if denied or not self._is_open(normalized_host(host), port, address):
            raise EgressRefused(
                f"The host {host} is not reachable from here: one of its addresses is private or denied. An operator "
                "may add it to SANGHA_EGRESS_ALLOW."
            )

    def names(self, host: str, port: int, address: str | None = None) -> bool:
        """Return whether the operator has named the host, or the network of the address it is written as."""
        plain = None if address is None else _plain(ipaddress.ip_address(address))
        return self._names(host, port) or (plain is not None and any(rule.contains(plain, port) for rule in self.allow))

    def _is_open(self, host: str, port: int, address: Address) -> bool:
        if any(rule.contains(address, port) for rule in self.allow):
            return True
        if _is_in(address, NETWORK_RULE_ONLY):
            return False
        return self._names(host, port) or (self._allows_any(port) and is_public(address))

    def _names(self, host: str, port: int) -> bool:
        return any(rule.names(host, port) for rule in self.allow)

    def _allows_any(self, port: int) -> bool:
        return any(rule.is_any(port) for rule in self.allow)

    @cached_property
    def _has_networks(self) -> bool:
        return any(rule.network is not None for rule in self.allow)


@lru_cache(maxsize=64)
def parse_policy(allow: Collection[str], deny: Collection[str]) -> EgressPolicy:
    """Return the policy of these rules."""
    return EgressPolicy(tuple(map(parse_rule, allow)), tuple(map(parse_rule, deny)))


def policy_of(settings: Settings) -> EgressPolicy:
    """Return the policy of an installation."""
    return parse_policy(settings.egress_allow, settings.egress_deny)


def is_public(address: Address) -> bool:
    """Return whether an address is one of a host on the internet."""
    return address.is_global and not address.is_multicast and not _is_in(address, NOT_PUBLIC)


def normalized_host(host: str) -> str:
    """Return a host name as rules have it."""
    return host.lower().removeprefix("[").removesuffix("]").rstrip(".")


def default_port(url: httpx2.URL) -> int:
    """Return the port of a URL that names none."""
    return 443 if url.scheme == "https" else 80


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _plain(address: Address) -> Address:
    """Return the IPv4 address of one that is mapped into IPv6, and an address without its zone."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


async def resolve(host: str, port: int, limiter: anyio.CapacityLimiter | None = None) -> Sequence[str]:
    """Return the addresses of a host, in the order of preference. The thread is left behind if the caller stops.

    limiter  of the threads for look-ups; None: that of the event loop
    """
    found = await anyio.to_thread.run_sync(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), abandon_on_cancel=True, limiter=limiter
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def own_resolver(threads: int) -> Resolver:
    """Return a resolver with threads of its own: hosts whose look-ups hang do not delay those of other resolvers."""

    @lru_cache(maxsize=1)
    def limiter() -> anyio.CapacityLimiter:  # created in the event loop
        return anyio.CapacityLimiter(threads)

    return lambda host, port: resolve(host, port, limiter())


class GuardedBackend(AsyncNetworkBackend):
    """Connects to addresses that the policy admits."""

    def __init__(self, policy: EgressPolicy, resolver: Resolver = resolve) -> None:
        self._policy = policy
        self._resolve = resolver
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Look the host up once and connect to one of its addresses. Raises EgressRefused if one is not admitted."""
        addresses = await self._addresses(host, port)
        failure: Exception = httpcore2.ConnectError(f"The host {host} has no address.")
        for address in addresses[:MAX_ADDRESSES]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            with anyio.fail_after(RESOLVE_TIMEOUT):
                addresses = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"The host {host} could not be looked up in time.") from error
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"The host {host} could not be found.") from error
        for address in addresses:
            self._policy.check_address(host, port, address)
        return addresses


@lru_cache(maxsize=1)
def ssl_context() -> ssl.SSLContext:
    """Return the process's context for TLS. Loading the certificates takes 20 ms."""
    return httpx2.create_ssl_context()


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends requests to hosts that the policy admits, and bounds what they answer.

    budget  bytes that all responses may have together, decompressed; a larger one raises ResponseTooLarge
    """

    def __init__(self, policy: EgressPolicy, budget: ByteBudget, resolver: Resolver = resolve) -> None:
        self._policy = policy
        self._budget = budget
        backend = GuardedBackend(policy, resolver)
        self._pool = httpcore2.AsyncConnectionPool(ssl_context=ssl_context(), network_backend=backend)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx2. Raises EgressRefused."""
        self._policy.check_url(request.url)
        request.headers["Accept-Encoding"] = "identity"
        try:
            response = await self._pool.handle_async_request(_core_request(request))
        except KNOWN_ERRORS as error:
            raise translated(error) from error
        headers = httpx2.Headers(response.headers)
        encoding = headers.pop("content-encoding", "identity")
        assert not isinstance(response.stream, bytes)
        translate = partial(self.body_error, request)
        stream = BoundedStream(response.stream, encoding, self._budget, translate)  # type: ignore[arg-type]
        return httpx2.Response(response.status, headers=headers, stream=stream, extensions=response.extensions)

    def body_error(self, request: httpx2.Request, error: Exception) -> Exception:
        """Return the error to raise for one that reading the response to a request has raised."""
        return translated(error)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


def guarded_client(
    policy: EgressPolicy,
    budget: ByteBudget,
    *,
    silence: float,
    resolver: Resolver = resolve,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> httpx2.AsyncClient:
    """Return a client for requests to hosts that callers choose. It follows no redirect unless it is asked to.

    silence  seconds without a byte after which a response fails
    """
    timeout = httpx2.Timeout(CONNECT_TIMEOUT, read=silence, write=WRITE_TIMEOUT)
    return httpx2.AsyncClient(
        transport=transport or GuardedTransport(policy, budget, resolver),
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        max_redirects=MAX_REDIRECTS,
    )


def _core_request(request: httpx2.Request) -> httpcore2.Request:
    url = httpcore2.URL(
        scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
    )
    return httpcore2.Request(
        request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions
    )


#: The errors of httpcore2 that httpx2 has under the same names.
KNOWN_ERRORS = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError)


def translated(error: Exception) -> Exception:
    """Return httpx2's error for one of httpcore2's, and any other error as it is."""
    if not isinstance(error, KNOWN_ERRORS):
        return error
    type_: type[Exception] = getattr(httpx2, type(error).__name__)
    return type_(str(error))

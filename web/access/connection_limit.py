"""Limit of the connections that one client address may hold open, so that it cannot take all files of the process."""

import ipaddress
import logging
import resource
import sys
import time
from collections import Counter

from models.platform.settings import Settings
from web.access.rate_limits import network

log = logging.getLogger(__name__)

#: One client address may hold this part of the process's open files, unless the setting says otherwise: three remain
#: for the others and for the connections to servers.
SHARE_OF_FILES = 4

#: Seconds between two warnings, whatever the number of refused connections.
WARNING_INTERVAL = 60.0


class ConnectionLimit:
    """Open connections by client address (IPv6: /64 network). Trusted proxies, which carry many clients, are exempt."""

    def __init__(self, per_address: int, trusted_proxies: str | None = None) -> None:
        self._per_address = per_address
        self._proxies = [ipaddress.ip_network(part.strip()) for part in (trusted_proxies or "").split(",") if part]
        self._open: Counter[str] = Counter()
        self._next_warning = 0.0

    @classmethod
    def of(cls, settings: Settings) -> "ConnectionLimit":
        """Build the limit that the settings ask for."""
        return cls(settings.connections_per_address or share_of_files(), settings.trusted_proxies)

    def open(self, ip: str) -> bool:
        """Count a new connection, which `close` must end; returns False, and counts nothing, if it is one too many."""
        client = network(ip)
        if self._open[client] >= self._per_address and not self._is_proxy(ip):
            self._warn(client)
            return False
        self._open[client] += 1
        return True

    def close(self, ip: str) -> None:
        """Count the end of a connection, and forget an address without connections."""
        client = network(ip)
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]

    def _is_proxy(self, ip: str) -> bool:
        address = ipaddress.ip_address(ip.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in proxies for proxies in self._proxies)

    def _warn(self, client: str) -> None:
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + WARNING_INTERVAL
            log.warning(
                "Refusing connections of %s, which has %s open: if it is a reverse proxy, name it in "
                "SANGHA_TRUSTED_PROXIES; otherwise SANGHA_CONNECTIONS_PER_ADDRESS sets the limit",
                client,
                self._per_address,
            )


def share_of_files() -> int:
    """Return the default: a share of the files that the process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else max(1, files // SHARE_OF_FILES)

"""Rules that say which hosts requests may be sent to, as settings write them.

*                  every public address
mcp.internal       a host, whatever addresses it has
*.example.com      the hosts below a domain
10.1.0.0/16        a network, or one address
mcp.internal:8080  any of these with a port; IPv6 in brackets: [fd00::1]:8080
"""

import ipaddress
import re
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")

#: What an invalid rule should be.
EXPECTED = "should be * or hosts and networks such as mcp.internal,*.example.com:443,10.1.0.0/16"


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed rule: of a network, or else of the names that `host` says; `port` None is any."""

    host: str
    network: Network | None
    port: int | None

    def names(self, host: str, port: int) -> bool:
        """Return whether it names the host, which is in lower case. One of a network and `*` name none."""
        if self.network is not None or not self._has(port):
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host

    def contains(self, address: Address, port: int) -> bool:
        """Return whether it is of a network that contains the address."""
        return self.network is not None and self._has(port) and address in self.network

    def is_any(self, port: int) -> bool:
        """Return whether it is `*`."""
        return self.host == "*" and self._has(port)

    def _has(self, port: int) -> bool:
        return self.port is None or self.port == port


def parse_rule(text: str) -> Rule:
    """Parse a rule. Raises ValueError with what it should be."""
    if (network := _network(text)) is not None:
        return Rule("", network, None)
    host, sign, port = text.rpartition(":")
    if not sign:
        return _rule(text, None)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(EXPECTED)
    return _rule(host, int(port))


def _rule(host: str, port: int | None) -> Rule:
    network = _network(host.removeprefix("[").removesuffix("]"))
    if network is None and host != "*" and not HOST.fullmatch(host):
        raise ValueError(EXPECTED)
    return Rule("" if network else host, network, port)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None

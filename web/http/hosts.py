"""Check the Host header against the names of this installation.

A page of another site can make its own name resolve to this machine (DNS rebinding), and would then share an origin
with this server. Such a name is a public one with a dot. So IP addresses, `localhost` and other names without a dot,
such as those of containers, are admitted; names with a dot only if the settings name them.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from models.platform.settings import Settings


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Names with a dot that requests may be for; `*`: any."""

    names: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> "AllowedHosts":
        """Return the hosts of the settings."""
        public = urlsplit(settings.public_address).hostname or ""
        return cls(frozenset({public.lower(), settings.host.lower(), *settings.allowed_hosts}))

    def check(self, host: bytes) -> None:
        """Check the value of a Host header. Raises HTTPException 421 for another server's name."""
        if "*" not in self.names and not self._admits(_name(host.decode("latin-1"))):
            message = "The Host header names another server; SANGHA_PUBLIC_URL and SANGHA_ALLOWED_HOSTS name this one"
            raise HTTPException(421, message)

    def _admits(self, name: str) -> bool:
        if name in self.names or "." not in name or name.endswith(".localhost"):
            return True
        try:
            ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True


def _name(host: str) -> str:
    """Return the name of `name:port` or `[address]:port` in lower case, without a final dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")

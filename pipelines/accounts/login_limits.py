"""Limit password attempts, so that guessing is slow and no attacker can lock a user out.

Three token buckets count an attempt: one of the e-mail address and the client's network (an IPv4 address, or an IPv6
/64), one of the wider network (/24, or /48), and one of the e-mail address from everywhere. An attempt is counted
before the password is verified, so a thousand at once are counted one by one.

The bucket of an e-mail address never refuses, or anybody could lock its owner out by trying it from many networks.
While it is empty, the address is under attack, and each network has one attempt per minute. So an attacker has one
guess a minute for each network that they own; the owner logs in with the first right password, from anywhere, and after
a typing error with the next one a minute later.

A network from which the address has logged in before only has the bucket of address and network: neither an attack on
the address nor one from the wider network affects it. What remains is an attacker in the owner's own network. Then the
owner waits for seconds, uses another network, or continues with a refresh token, which is not limited here.

Addresses are stored in Redis as hashes. Without Redis nobody can log in, since a guess that cannot be counted is
rejected.
"""

import hashlib
import ipaddress
import math
from contextlib import suppress
from dataclasses import dataclass

import redis

from models.access import rate_limits
from models.access.rate_limits import Bucket, Rate
from models.platform.errors import LimitExceeded, Unavailable

#: Attempts of an e-mail address from one network: 10, and one more every 15 s.
PAIR = Rate(10, 150)

#: The same while the address is under attack: one a minute.
PAIR_UNDER_ATTACK = Rate(1, 60)

#: Attempts from a wider network: 600, and two more every second.
NETWORK = Rate(600, 300)

#: Attempts on an e-mail address beyond which it is under attack: 20, and one more every 30 s.
ADDRESS = Rate(20, 600)

#: The group of the buckets: each attempt draws from several, which other attempts share.
GROUP = "login"

#: Milliseconds for which a network is known after a login: 30 days.
KNOWN_FOR = 30 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """An attempt to prove an identity: `subject` is what it names, an e-mail address or a user."""

    subject: str
    ip: str

    @property
    def known_key(self) -> str:
        """The Redis key that exists when the subject has logged in from this network."""
        return f"login:known:{self._pair}"

    @property
    def pair(self) -> Bucket:
        """The bucket of subject and network."""
        owner, reduced = f"login-pair {self._pair}", PAIR_UNDER_ATTACK
        return Bucket(owner, "attempts", PAIR.limit, 1, period=PAIR.period, reduced=reduced, group=GROUP)

    @property
    def network(self) -> Bucket:
        """The bucket of the wider network, for all subjects."""
        _, network = _networks(self.ip)
        return Bucket(f"login-network {network}", "attempts", NETWORK.limit, 1, period=NETWORK.period, group=GROUP)

    @property
    def address(self) -> Bucket:
        """The bucket of the subject from everywhere; empty means that it is under attack."""
        owner = f"login-address {_hash(self.subject)}"
        return Bucket(owner, "attempts", ADDRESS.limit, 1, period=ADDRESS.period, advisory=True, group=GROUP)

    @property
    def _pair(self) -> str:
        return _hash(self.subject, _networks(self.ip)[0])


class LoginLimiter:
    """Counts login attempts in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def count_attempt(self, attempt: LoginAttempt) -> None:
        """Count an attempt before the password is verified. Raises LimitExceeded `too_many_attempts`, Unavailable."""
        try:
            known = self._client.exists(attempt.known_key)
            buckets = [attempt.pair] if known else [attempt.pair, attempt.network, attempt.address]
            result = rate_limits.draw(self._client, buckets)
        except (redis.ConnectionError, redis.TimeoutError):
            message = "Login is temporarily unavailable: the rate limiter cannot be reached."
            raise Unavailable(message) from None
        if result.refused is not None:
            message = f"Too many attempts. Try again in {math.ceil(result.wait)} seconds."
            raise LimitExceeded(message, code="too_many_attempts", retry_after=result.wait)

    def record_success(self, attempt: LoginAttempt) -> None:
        """Remember the network after a right password and refill its bucket. Does nothing if Redis is away."""
        with suppress(redis.ConnectionError, redis.TimeoutError), self._client.pipeline(transaction=False) as pipeline:
            pipeline.set(attempt.known_key, 1, px=KNOWN_FOR)
            pipeline.delete(attempt.pair.key)
            pipeline.execute()


def _networks(ip: str) -> tuple[str, str]:
    """Return the client's network and the wider one; a text that is no IP address, such as a socket's peer, is both."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip, ip
    address = getattr(address, "ipv4_mapped", None) or address
    own, wider = (32, 24) if address.version == 4 else (64, 48)
    return _network(address, own), _network(address, wider)


def _network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix_length: int) -> str:
    return str(ipaddress.ip_network(f"{address}/{prefix_length}", strict=False))


def _hash(*names: str) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:32]

"""Limit password attempts, so that guessing is slow and no attacker can lock a user out.

Four token buckets count an attempt: one of the e-mail address and the client's network (an IPv4 address, or an IPv6
/64), one of that network for all addresses, one of the wider network (/24, or /48), and one of the e-mail address from
everywhere. An attempt is counted before the password is verified, so a thousand at once are counted one by one.

The last two never refuse, or anybody could lock others out: the owner of an address by trying it from many networks,
and neighbours by trying many addresses. While one of them is empty, the first two have a lower rate: one attempt a
minute for an address from a network, and ten for all addresses. So the owner logs in with the first right password,
from anywhere, and after a typing error with the next one a minute later.

A network from which a user has logged in before is known for this user, not for the address, with which strangers may
have signed up. When the buckets above refuse, an attempt from a known network has a bucket of its own, and only the
passwords of users who are known there are verified. What remains is an attacker in the owner's own network. Then the
owner waits for seconds, uses another network, or continues with a refresh token, which is not limited here.

A right password returns what its own attempt has drawn, and nothing else: guesses stay counted.

Attempts for different purposes draw from different buckets: requests for e-mails do not delay logins.

Addresses are stored in Redis as hashes. Without Redis nobody can log in, since a guess that cannot be counted is
rejected.
"""

import hashlib
import ipaddress
import math
from collections.abc import Sequence
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

#: Attempts from one network on all e-mail addresses: 120, and two more every second.
PLACE = Rate(120, 60)

#: The same while the wider network or the address is under attack: ten a minute.
PLACE_UNDER_ATTACK = Rate(10, 60)

#: Attempts from a wider network beyond which it is under attack: 600, and two more every second.
NETWORK = Rate(600, 300)

#: Attempts on an e-mail address beyond which it is under attack: 20, and one more every 30 s.
ADDRESS = Rate(20, 600)

#: The group of the buckets: each attempt draws from several, which other attempts share.
GROUP = "login"

#: Milliseconds for which a network is known after a login: 30 days.
KNOWN_FOR = 30 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """An attempt to prove an identity: `subject` is what it names, an e-mail address or a user.

    Attempts with different purposes share no bucket.
    """

    subject: str
    ip: str
    purpose: str = "login"

    @property
    def pair(self) -> Bucket:
        """The bucket of subject and network."""
        return self._bucket("pair", _hash(self.subject, _networks(self.ip)[0]), PAIR, PAIR_UNDER_ATTACK)

    @property
    def place(self) -> Bucket:
        """The bucket of the network, for all subjects."""
        return self._bucket("place", _networks(self.ip)[0], PLACE, PLACE_UNDER_ATTACK)

    @property
    def network(self) -> Bucket:
        """The bucket of the wider network, for all subjects; empty means that it is under attack."""
        return self._bucket("network", _networks(self.ip)[1], NETWORK)

    @property
    def address(self) -> Bucket:
        """The bucket of the subject from everywhere; empty means that it is under attack."""
        return self._bucket("address", _hash(self.subject), ADDRESS)

    def known_key(self, user_id: str) -> str:
        """Return the Redis key that exists when the user has logged in from this network."""
        return f"login:known:{_hash(user_id, _networks(self.ip)[0])}"

    def known_pair(self, user_id: str) -> Bucket:
        """Return the bucket of a user and a network that is known for them."""
        return self._bucket("known", _hash(user_id, _networks(self.ip)[0]), PAIR)

    def _bucket(self, name: str, owner: str, rate: Rate, reduced: Rate | None = None) -> Bucket:
        """Return a bucket; one without a reduced rate is advisory."""
        advisory = reduced is None and name != "known"
        return Bucket(
            f"{self.purpose}-{name} {owner}",
            "attempts",
            rate.limit,
            1,
            period=rate.period,
            advisory=advisory,
            reduced=reduced,
            group=GROUP,
        )


@dataclass(frozen=True, slots=True)
class CountedAttempt:
    """An admitted attempt: the users whose passwords may be verified (None: all), and the buckets to refill."""

    attempt: LoginAttempt
    user_ids: frozenset[str] | None
    drawn: tuple[Bucket, ...]

    def admits(self, user_id: str) -> bool:
        """Return whether this user's password may be verified."""
        return self.user_ids is None or user_id in self.user_ids


class LoginLimiter:
    """Counts login attempts in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def count_attempt(self, attempt: LoginAttempt, user_ids: Sequence[str] = ()) -> CountedAttempt:
        """Count an attempt before the passwords of these users are verified.

        Raises LimitExceeded `too_many_attempts`, and Unavailable.
        """
        try:
            return self._count(attempt, user_ids)
        except redis.RedisError:  # also one that is full
            message = "Login is temporarily unavailable: the rate limiter cannot be reached."
            raise Unavailable(message) from None

    def _count(self, attempt: LoginAttempt, user_ids: Sequence[str]) -> CountedAttempt:
        result = rate_limits.draw(self._client, [attempt.pair, attempt.place, attempt.network, attempt.address])
        if result.refused is None:
            # What never refuses is not refilled: an attacker's own logins would hide their guesses.
            return CountedAttempt(attempt, None, (attempt.pair, attempt.place))
        known = [user_id for user_id in user_ids if self._client.exists(attempt.known_key(user_id))]
        buckets = tuple(attempt.known_pair(user_id) for user_id in known)
        if not known or rate_limits.draw(self._client, buckets).refused is not None:
            message = f"Too many attempts. Try again in {math.ceil(result.wait)} seconds."
            raise LimitExceeded(message, code="too_many_attempts", retry_after=result.wait)
        return CountedAttempt(attempt, frozenset(known), buckets)

    def record_success(self, counted: CountedAttempt, user_id: str) -> None:
        """Remember the network for the user whose password was right, and return what the attempt has drawn.

        Does nothing if Redis is away.
        """
        with suppress(redis.RedisError):
            self._client.set(counted.attempt.known_key(user_id), 1, px=KNOWN_FOR)
            rate_limits.give_back(self._client, counted.drawn)


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

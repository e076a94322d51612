"""How often passwords may be tried, so that guessing gets nowhere and nobody can be kept out by it.

A try costs time, which three counters owe: one for the address from this place (an IPv4 address, or an IPv6 /64), one
for the place's network (/24, or /48), and one for the address from everywhere. A debt is paid off by waiting; a try
that would take it above its limit is refused, and the refusal says when to come again (GCRA, as in ATM's traffic
control). Tries are counted before the password is looked at: a thousand at once are counted one by one.

The counter of an address alone never refuses. Whoever hammers an address from many places at once would lock its owner
out with it. When it is above its limit, it makes tries dear instead: a place that has not tried before has one, and the
next one after a minute. So an attacker has one guess a minute for each network that they own, and the owner, wherever
they are, comes in with the first right password, and after a typing error with the next one in a minute.

A place from which the address has got in before only has the counter of its own: neither an attack on the address nor
one from its network touches it. What is left is an attacker who shares the owner's very place. There the owner waits
for seconds, comes from elsewhere, or goes on with a refresh token, which nothing here counts.

Addresses stand in Redis as hashes. Without Redis nobody logs in: a guess that can't be counted is refused.
"""

import hashlib
import ipaddress
from contextlib import suppress
from dataclasses import dataclass

import redis

from models.platform.errors import TooMany, Unavailable

#: Milliseconds that a try costs, and tries that may be owed: address and place, network, address.
PAIR = (15_000, 10)
NETWORK = (500, 600)
ADDRESS = (30_000, 20)

#: Milliseconds that a try costs address and place while the address is under attack.
DEAR = 60_000

#: Milliseconds for which a place is known after somebody got in.
KNOWN = 30 * 24 * 3600 * 1000

# KEYS: known, pair, network, address. ARGV: the cost and the tries of each, and the dear cost.
# Returns the milliseconds to wait; 0 when the try is counted and may be made.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function debt(key) return math.max(0, (tonumber(redis.call('GET', key)) or 0) - now) end
local function owe(key, debt) redis.call('SET', key, string.format('%d', now + debt), 'PX', debt) end
local pair_cost, pair_limit = tonumber(ARGV[1]), ARGV[1] * ARGV[2]
local network_cost, network_limit = tonumber(ARGV[3]), ARGV[3] * ARGV[4]
local address_cost, address_limit = tonumber(ARGV[5]), ARGV[5] * ARGV[6]

local pair = debt(KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 1 then
    if pair + pair_cost > pair_limit then return pair + pair_cost - pair_limit end
    owe(KEYS[2], pair + pair_cost)
    return 0
end

local network, address = debt(KEYS[3]), debt(KEYS[4])
if address + address_cost > address_limit then
    pair_cost = tonumber(ARGV[7])
    pair_limit = pair_cost
end
local wait = math.max(pair + pair_cost - pair_limit, network + network_cost - network_limit)
if wait > 0 then return wait end
owe(KEYS[2], pair + pair_cost)
owe(KEYS[3], network + network_cost)
owe(KEYS[4], math.min(address + address_cost, address_limit))
return 0
"""


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """Somebody who tries to get in: `subject` is what they name, an address or a user."""

    subject: str
    ip: str

    @property
    def keys(self) -> list[str]:
        """Where it is counted: known, pair, network, address."""
        place, network = _places(self.ip)
        pair = _hashed(self.subject, place)
        return [
            f"login:known:{pair}",
            f"login:pair:{pair}",
            f"login:network:{network}",
            f"login:{_hashed(self.subject)}",
        ]


class LoginLimiter:
    """Counts tries in Redis, in one call each."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._script = client.register_script(SCRIPT)

    def count_attempt(self, attempt: LoginAttempt) -> None:
        """Count a try that is about to be made. Raises TooMany `too_many_attempts`, and Unavailable without Redis."""
        try:
            wait = self._script(keys=attempt.keys, args=[*PAIR, *NETWORK, *ADDRESS, DEAR])
        except (redis.ConnectionError, redis.TimeoutError):
            raise Unavailable("Nobody can log in now: what counts the attempts does not answer.") from None
        if wait:
            message = "There were too many attempts. Try again later."
            raise TooMany(message, code="too_many_attempts", retry_after=int(wait) / 1000)

    def record_success(self, attempt: LoginAttempt) -> None:
        """The password was right: the place is known from now on, and owes nothing. If Redis is there to hear it."""
        known, pair, *_ = attempt.keys
        with suppress(redis.ConnectionError, redis.TimeoutError), self._client.pipeline() as together:
            together.set(known, 1, px=KNOWN)
            together.delete(pair)
            together.execute()


def _places(ip: str) -> tuple[str, str]:
    """The place and the network of an address; what is none, such as a socket's peer, is its own."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip, ip
    address = getattr(address, "ipv4_mapped", None) or address
    place, network = (32, 24) if address.version == 4 else (64, 48)
    return _within(address, place), _within(address, network)


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int) -> str:
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))


def _hashed(*names: str) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:32]

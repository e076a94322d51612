"""Rate limits at the door: which buckets a request draws from, what its answer tells of them, and what happens without
Redis: then reads go through and all else is put off, rather than letting everything through.
"""

import ipaddress
import math
import threading
import time
from collections.abc import Mapping, Sequence

import redis

from models.access import rate_limits
from models.access.rate_limits import Bucket, BucketLevel, DrawResult
from models.accounts.accounts import Caller
from models.accounts.plans import Limits
from models.platform.errors import TooMany, Unavailable

#: Bytes of a request that are taken for one token of its turn, until the turn has ended.
BYTES_A_TOKEN = 4

#: Seconds that Redis is left alone after it failed; then one request tries it again.
PAUSE = 1.0


class RateLimited(TooMany):
    """A bucket has too little; `headers` tell how full it is."""

    def __init__(self, drawn: DrawResult, bucket: Bucket) -> None:
        kind = bucket.owner.partition(" ")[0]
        super().__init__(
            f"Rate limit reached for {OWNERS[kind]}: {bucket.limit} {bucket.unit} a minute. "
            f"Please try again in {duration(drawn.wait)}.",
            retry_after=drawn.wait,
        )
        self.headers = headers(drawn.levels)


#: How messages name the owner of a bucket.
OWNERS = {"account": "your account", "key": "this API key", "address": "your address", "failures": "failed attempts"}


class Limiter:
    """Asked in the thread pool.

    `by_address` is how many requests a minute an address has that show nothing which holds: public ones, and apart from
    them those with a bad token or key. A good one is never refused for others' bad ones, since many share an address;
    and there is too much in a token to guess it at any speed.
    """

    def __init__(self, client: redis.Redis, by_address: int) -> None:
        self._client = client
        self._by_address = by_address
        self._lock = threading.Lock()
        self._closed_until = 0.0

    def caller(self, caller: Caller, limits: Limits, *, cost: int, tokens: int, reads: bool) -> Mapping[str, str]:
        """Draw for a request of somebody known; the answer's headers. Raises RateLimited and Unavailable."""
        buckets = []
        for owner in rate_limits.bucket_owners(caller.account_id, caller.key_id):
            if limits.requests_per_minute is not None:
                buckets.append(Bucket(owner, "requests", limits.requests_per_minute, cost))
            if limits.tokens_per_minute is not None and tokens:
                buckets.append(Bucket(owner, "tokens", limits.tokens_per_minute, tokens))
        return headers(self._draw(buckets, reads=reads))

    def visitor(self, ip: str) -> None:
        """Draw for a public request that does something. Raises RateLimited and Unavailable."""
        self._draw([Bucket(f"address {network(ip)}", "requests", self._by_address, 1)], reads=False)

    def failure(self, ip: str) -> None:
        """Count a token or a key that does not hold. Raises RateLimited."""
        self._draw([Bucket(f"failures {network(ip)}", "requests", self._by_address, 1)], reads=True)

    def _draw(self, buckets: Sequence[Bucket], *, reads: bool) -> Sequence[BucketLevel]:
        if not buckets:
            return ()
        drawn = self._asked(buckets)
        if drawn is None and reads:
            return ()
        if drawn is None:
            raise Unavailable("The rate limits can't be looked up for now.")
        if drawn.refused is not None:
            raise RateLimited(drawn, drawn.refused)
        return drawn.levels

    def _asked(self, buckets: Sequence[Bucket]) -> DrawResult | None:
        """What Redis says, or None. While it is down one request in a while waits for it, not all of them."""
        if not self._may_ask():
            return None
        try:
            drawn = rate_limits.draw(self._client, buckets)
        except redis.RedisError:
            self._closed_until = time.monotonic() + PAUSE
            return None
        self._closed_until = 0.0
        return drawn

    def _may_ask(self) -> bool:
        if not self._closed_until:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                return False
            self._closed_until = now + PAUSE  # this one tries; the others wait for what it finds
            return True


def headers(levels: Sequence[BucketLevel]) -> dict[str, str]:
    """What OpenAI's clients read; of several buckets of a unit the emptiest is told."""
    told: dict[str, str] = {}
    for level in sorted(levels, key=lambda level: -level.remaining):
        unit = level.bucket.unit
        told[f"x-ratelimit-limit-{unit}"] = str(level.bucket.limit)
        told[f"x-ratelimit-remaining-{unit}"] = str(level.remaining)
        told[f"x-ratelimit-reset-{unit}"] = duration(level.reset)
    return told


def duration(seconds: float) -> str:
    """As OpenAI writes it: `17ms`, `1.5s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


def network(ip: str) -> str:
    """Whom an address stands for: itself, or with IPv6 the network of a household, which has 2⁶⁴ of them."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return "unknown"  # a Unix socket's peer has none
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)


def estimate(length: str | None) -> int:
    """Tokens of a turn, by the length that its request declares; what it declares not is corrected at its end."""
    declared = int(length) if length and length.isascii() and length.isdigit() and len(length) < 10 else 0
    return max(declared // BYTES_A_TOKEN, 1)

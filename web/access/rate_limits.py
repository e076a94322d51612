"""Rate limits: which buckets a request draws from, and the headers that report their levels.

While Redis cannot be reached, reading requests are admitted and all others are rejected with status 503.
"""

import ipaddress
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import redis

from models.access import rate_limits
from models.access.rate_limits import Bucket, BucketLevel, DrawResult, token_buckets
from models.accounts.accounts import Caller
from models.accounts.plans import Limits
from models.platform.errors import Unavailable
from web.http.errors import RateLimited

#: Bytes of a request that count as one token until its turn has ended.
BYTES_PER_TOKEN = 4

#: Seconds without requests to Redis after it failed; then one request tries again.
PAUSE = 1.0

#: Reads and refreshes that one address may make for each other public request.
LENIENCE = 10

#: How messages name the owner of a bucket.
OWNERS = {
    "account": "your account",
    "key": "this API key",
    "address": "your IP address",
    "failures": "failed authentication attempts from your IP address",
}


class Limiter:
    """Draws requests from their buckets. Blocks, so it is called in the thread pool.

    `per_address` is the number of requests a minute from one IP address without valid credentials: public requests of
    each purpose, so that neighbours who request e-mails do not keep anybody from logging in, and in a separate bucket
    those with an invalid token or key. Ten times as many reads and refreshes of sessions are admitted. Valid
    credentials are never rejected for others' invalid ones, since many users share an address, and a token has too many
    bits to be guessed at any rate.
    """

    def __init__(self, client: redis.Redis, per_address: int) -> None:
        self._client = client
        self._per_address = per_address
        self._lock = threading.Lock()
        self._paused_until = 0.0

    def draw_for_caller(
        self, caller: Caller, limits: Limits, *, cost: int, tokens: int, reads: bool
    ) -> Mapping[str, str]:
        """Draw an authenticated request; returns response headers. Raises RateLimited and Unavailable."""
        buckets, group = [], caller.account_id
        for owner in rate_limits.bucket_owners(caller.account_id, caller.key_id):
            if limits.requests_per_minute is not None:
                buckets.append(Bucket(owner, "requests", limits.requests_per_minute, cost, group=group))
            if limits.tokens_per_minute is not None and tokens:
                buckets.append(Bucket(owner, "tokens", limits.tokens_per_minute, tokens, group=group))
        return level_headers(self._draw(buckets, reads=reads))

    def draw_tokens(self, caller: Caller, limit: int, tokens: int) -> Mapping[str, str]:
        """Draw more tokens for an admitted request; returns response headers. Raises RateLimited and Unavailable."""
        return level_headers(self._draw(token_buckets(caller.account_id, caller.key_id, limit, tokens), reads=False))

    def give_back_tokens(self, caller: Caller, limit: int, tokens: int) -> None:
        """Return tokens of a request that uses none. While Redis is unavailable they are lost, for at most a minute."""
        with suppress(redis.RedisError):
            rate_limits.give_back(self._client, token_buckets(caller.account_id, caller.key_id, limit, tokens))

    def draw_for_address(self, ip: str, purpose: str = "", *, lenient: bool = False) -> None:
        """Draw a public request. `lenient`: it has a higher limit, and is admitted without Redis.

        Raises RateLimited and Unavailable.
        """
        limit = self._per_address * (LENIENCE if lenient else 1)
        owner = f"address {purpose or 'public'} {network(ip)}"
        self._draw([Bucket(owner, "requests", limit, 1)], reads=lenient)

    def count_failure(self, ip: str) -> None:
        """Count a request with invalid credentials. Raises RateLimited."""
        self._draw([Bucket(f"failures {network(ip)}", "requests", self._per_address, 1)], reads=True)

    def _draw(self, buckets: Sequence[Bucket], *, reads: bool) -> Sequence[BucketLevel]:
        if not buckets:
            return ()
        result = self._try_draw(buckets)
        if result is None and reads:
            return ()
        if result is None:
            raise Unavailable("This request cannot be accepted at the moment: the rate limiter cannot be reached.")
        if result.refused is not None:
            raise _rate_limited(result, result.refused)
        return result.levels

    def _try_draw(self, buckets: Sequence[Bucket]) -> DrawResult | None:
        """Draw in Redis; None when it cannot be reached. During an outage only one request per pause waits for it."""
        if not self._may_try():
            return None
        try:
            result = rate_limits.draw(self._client, buckets)
        except redis.RedisError:
            self._paused_until = time.monotonic() + PAUSE
            return None
        self._paused_until = 0.0
        return result

    def _may_try(self) -> bool:
        if not self._paused_until:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._paused_until:
                return False
            self._paused_until = now + PAUSE  # this request tries; the others use its result
            return True


def _rate_limited(result: DrawResult, bucket: Bucket) -> RateLimited:
    owner = OWNERS[bucket.owner.partition(" ")[0]]
    message = (
        f"Rate limit reached for {owner}: {bucket.limit} {bucket.unit} per minute. "
        f"Try again in {duration(result.wait)}."
    )
    return RateLimited(message, retry_after=result.wait, headers=level_headers(result.levels))


def level_headers(levels: Sequence[BucketLevel]) -> dict[str, str]:
    """Return the headers that OpenAI's clients read; of several buckets with the same unit, those of the emptiest."""
    headers: dict[str, str] = {}
    for level in sorted(levels, key=lambda level: -level.remaining):
        unit = level.bucket.unit
        headers[f"x-ratelimit-limit-{unit}"] = str(level.bucket.limit)
        headers[f"x-ratelimit-remaining-{unit}"] = str(level.remaining)
        headers[f"x-ratelimit-reset-{unit}"] = duration(level.reset)
    return headers


def duration(seconds: float) -> str:
    """Format a duration as OpenAI does: `17ms`, `1.5s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


def network(ip: str) -> str:
    """Return what a client's limit is keyed by: the IPv4 address, or the IPv6 /64 network, of which a household has
    2⁶⁴ addresses.
    """
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return "unknown"  # the peer of a Unix socket has no address
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)


def estimate_tokens(content_length: str | None) -> int:
    """Estimate a turn's tokens from the declared length of its request; the end of the turn corrects the estimate."""
    valid = content_length and content_length.isascii() and content_length.isdigit() and len(content_length) < 10
    declared = int(content_length) if content_length and valid else 0
    return body_tokens(declared)


def body_tokens(size: int) -> int:
    """Estimate a turn's tokens from the length of its request in bytes."""
    return max(size // BYTES_PER_TOKEN, 1)

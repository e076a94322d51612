"""Rate limits: token buckets in Redis, with one script call for all buckets that a request draws from.

A bucket holds `limit` tokens and fills evenly within a minute, so that a client at rest may spend a minute's worth at
once. It is stored as one number, the time at which it is full again (GCRA, ITU-T I.371): that number goes up with each
draw, and expires by itself. The clock is Redis's own.

A request draws from all of its buckets or from none. One that costs more than a bucket holds takes the whole of it.

Tokens of a language model are known only when a turn has ended. So the door draws an estimate, and the worker corrects
it at the end: what the turn used more is drawn without asking, and may leave a debt to wait for; what it used less
comes back. A turn that never ran keeps what was drawn: the minute heals it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

Unit = Literal["requests", "tokens"]

#: Seconds in which an empty bucket becomes full; the script has the same.
PERIOD = 60

# KEYS: the buckets. ARGV: whether to draw without asking, then for each bucket its limit and its cost.
# Replies {the bucket that refuses or 0, its wait, then for each bucket what is left and the time until it is full}.
DRAW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local period = 60 * 1000000
local forced = ARGV[1] == '1'
local before, after, step = {}, {}, {}
local refusing, wait = 0, 0
for place, key in ipairs(KEYS) do
    local limit, cost = tonumber(ARGV[2 * place]), tonumber(ARGV[2 * place + 1])
    if not forced then cost = math.min(cost, limit) end
    step[place] = period / limit
    before[place] = math.max(tonumber(redis.call('GET', key) or 0), now)
    after[place] = math.max(before[place] + cost * step[place], now)
    local over = after[place] - (now + period)
    if not forced and over > 0.5 and over > wait then
        refusing, wait = place, over
    end
end
local reply = {refusing, math.ceil(wait)}
for place, key in ipairs(KEYS) do
    local full = before[place]
    if refusing == 0 then
        full = after[place]
        local rest = math.ceil((full - now) / 1000)
        if rest > 0 then
            redis.call('SET', key, string.format('%.0f', full), 'PX', rest)
        else
            redis.call('DEL', key)
        end
    end
    reply[2 * place + 1] = math.max(math.floor((now + period - full) / step[place] + 0.001), 0)
    reply[2 * place + 2] = math.ceil(full - now)
end
return reply
"""

DRAW_SHA = hashlib.sha1(DRAW.encode(), usedforsecurity=False).hexdigest()

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit a minute on what an owner (`account acct_…`) may have, and what is drawn from it now."""

    owner: str
    unit: Unit
    limit: int
    cost: int

    @property
    def key(self) -> str:
        """Where it stands."""
        return f"sangha:limit:{self.owner.replace(' ', ':')}:{self.unit}"


@dataclass(frozen=True, slots=True)
class BucketLevel:
    """How full a bucket is: tokens that are left, and seconds until it is full."""

    bucket: Bucket
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class DrawResult:
    """What became of a draw: `refused` is the bucket that has too little, and will have enough after `wait` seconds."""

    levels: Sequence[BucketLevel]
    refused: Bucket | None = None
    wait: float = 0.0


def draw(client: redis.Redis, buckets: Sequence[Bucket]) -> DrawResult:
    """Draw from all buckets or from none. Raises redis.RedisError."""
    closed = next((bucket for bucket in buckets if bucket.limit <= 0), None)
    if closed is not None:
        return DrawResult([BucketLevel(closed, 0, PERIOD)], closed, PERIOD)
    command = _command(buckets, forced=False)
    try:
        reply: Any = client.evalsha(DRAW_SHA, *command)
    except redis.exceptions.NoScriptError:
        reply = client.eval(DRAW, *command)
    refusing, wait, *numbers = reply
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    levels = [BucketLevel(bucket, left, full / MICROSECONDS) for bucket, (left, full) in zip(buckets, pairs, strict=True)]
    return DrawResult(levels, buckets[refusing - 1] if refusing else None, wait / MICROSECONDS)


def bucket_owners(account_id: str, key_id: str | None) -> list[str]:
    """Whose buckets a request draws from: the account's and, alike, its API key's."""
    return [f"account {account_id}", *([f"key {key_id}"] if key_id else [])]


def token_draw_arguments(key_id: str | None, limit: int | None, charged: int) -> dict[str, Any]:
    """What a job must know of the tokens that the door drew for it, as an argument; nothing where there is no limit."""
    return {"drawn": {"tokens": charged, "limit": limit, "key_id": key_id}} if limit else {}


def correction_command(account_id: str, arguments: Mapping[str, Any], used: int) -> list[Any] | None:
    """The command that corrects the door's estimate by the tokens that were `used`; None where it drew nothing."""
    drawn = arguments.get("drawn")
    if not drawn or used == drawn["tokens"]:
        return None
    cost = used - drawn["tokens"]
    buckets = [Bucket(owner, "tokens", drawn["limit"], cost) for owner in bucket_owners(account_id, drawn["key_id"])]
    return ["EVALSHA", DRAW_SHA, *_command(buckets, forced=True)]


def _command(buckets: Sequence[Bucket], *, forced: bool) -> list[Any]:
    """The number of keys, the keys and the arguments of the script."""
    numbers = [number for bucket in buckets for number in (bucket.limit, bucket.cost)]
    return [len(buckets), *(bucket.key for bucket in buckets), int(forced), *numbers]

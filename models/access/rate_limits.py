"""Rate limits: token buckets in Redis, drawn by one script call for all buckets of a request.

A bucket holds `limit` tokens and fills evenly within its period, so that a client at rest may spend a period's worth at
once. It is stored as one number, the time at which it is full again (GCRA, ITU-T I.371): each draw raises that number,
and the key expires at that time. The clock is Redis's own.

A request draws from all of its buckets or from none. A cost above the limit takes the whole bucket.

The tokens of a turn are known only when it has ended. So the web process draws an estimate of its input and the most
tokens that its answer may have, and the worker corrects that at the end: tokens beyond the estimate are drawn without
asking and may leave a debt, unused ones are returned. A turn that is cancelled before it runs returns all. What is lost
with a process is there again within a minute, when the bucket is full.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import redis

from models.platform.redis_cluster import Command, run_script

Unit = Literal["requests", "tokens", "attempts"]

#: Seconds in which an empty bucket becomes full, unless it names others.
PERIOD = 60

# KEYS: the buckets. ARGV: 1 to draw without asking, then six numbers per bucket: limit, cost, period, whether it is
# advisory, and its reduced limit and period (0 0: none); periods are in seconds.
# Returns {the bucket that refuses or 0, its wait, then per bucket its remaining tokens and the time until it is full}.
DRAW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local forced = ARGV[1] == '1'
local limit, cost, period, advisory, step, before, after = {}, {}, {}, {}, {}, {}, {}

local function measure(i)
    if not forced then cost[i] = math.min(cost[i], limit[i]) end
    step[i] = period[i] / limit[i]
    after[i] = math.max(before[i] + cost[i] * step[i], now)
end

local function excess(i)
    local over = after[i] - (now + period[i])
    if forced or over <= 0.5 then return 0 end
    return over
end

local exhausted = false
for i, key in ipairs(KEYS) do
    local at = 6 * i - 4
    limit[i], cost[i], period[i] = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2] * 1000000
    advisory[i] = ARGV[at + 3] == '1'
    before[i] = math.max(tonumber(redis.call('GET', key) or 0), now)
    measure(i)
    if advisory[i] and excess(i) > 0 then
        exhausted = true
        after[i] = now + period[i]
    end
end

local refusing, wait = 0, 0
for i in ipairs(KEYS) do
    local reduced = tonumber(ARGV[6 * i])
    if exhausted and reduced > 0 then
        limit[i], period[i] = reduced, ARGV[6 * i + 1] * 1000000
        measure(i)
    end
    if not advisory[i] and excess(i) > wait then
        refusing, wait = i, excess(i)
    end
end

local reply = {refusing, math.ceil(wait)}
for i, key in ipairs(KEYS) do
    local full = before[i]
    if refusing == 0 then
        full = after[i]
        local rest = math.ceil((full - now) / 1000)
        if rest > 0 then
            redis.call('SET', key, string.format('%.0f', full), 'PX', rest)
        else
            redis.call('DEL', key)
        end
    end
    reply[2 * i + 1] = math.max(math.floor((now + period[i] - full) / step[i] + 0.001), 0)
    reply[2 * i + 2] = math.ceil(full - now)
end
return reply
"""

DRAW_SHA = hashlib.sha1(DRAW.encode(), usedforsecurity=False).hexdigest()

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens that a bucket holds, and the seconds in which it fills."""

    limit: int
    period: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of an owner, such as `account acct_…`, and the cost of this draw.

    group     names the node of a Redis Cluster that has the bucket; the buckets of one draw have the same
    advisory  never refuses a draw; takes what is there
    reduced   the rate that replaces its own in a draw in which an advisory bucket has too little
    """

    owner: str
    unit: Unit
    limit: int
    cost: int
    period: int = PERIOD
    advisory: bool = False
    reduced: Rate | None = None
    group: str = ""

    @property
    def key(self) -> str:
        """The bucket's key in Redis."""
        tag = f"{{{self.group}}}:" if self.group else ""
        return f"sangha:limit:{tag}{self.owner.replace(' ', ':')}:{self.unit}"


@dataclass(frozen=True, slots=True)
class BucketLevel:
    """The tokens that remain in a bucket, and the seconds until it is full."""

    bucket: Bucket
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class DrawResult:
    """The levels after a draw; `refused` is the bucket that has too little, and has enough after `wait` seconds."""

    levels: Sequence[BucketLevel]
    refused: Bucket | None = None
    wait: float = 0.0


def draw(client: redis.Redis, buckets: Sequence[Bucket]) -> DrawResult:
    """Draw from all buckets or from none. Raises redis.RedisError."""
    closed = next((bucket for bucket in buckets if bucket.limit <= 0), None)
    if closed is not None:
        return DrawResult([BucketLevel(closed, 0, PERIOD)], closed, PERIOD)
    refusing, wait, *numbers = _run(client, _command(buckets, forced=False))
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    levels = [
        BucketLevel(bucket, remaining, full / MICROSECONDS)
        for bucket, (remaining, full) in zip(buckets, pairs, strict=True)
    ]
    return DrawResult(levels, buckets[refusing - 1] if refusing else None, wait / MICROSECONDS)


def give_back_of_job(client: redis.Redis, account_id: str, arguments: Mapping[str, Any]) -> None:
    """Return what was drawn for a job with these arguments, which ended without an attempt. Raises redis.RedisError."""
    drawn = arguments["drawn"]
    give_back(client, token_buckets(account_id, drawn["key_id"], drawn["limit"], drawn["tokens"]))


def give_back(client: redis.Redis, buckets: Sequence[Bucket]) -> None:
    """Return the cost of a draw to its buckets. Raises redis.RedisError."""
    _run(client, _command([replace(bucket, cost=-bucket.cost) for bucket in buckets], forced=True))


def _run(client: redis.Redis, command: Sequence[Any]) -> Any:
    return run_script(client, DRAW_SHA, DRAW, command)


def bucket_owners(account_id: str, key_id: str | None) -> list[str]:
    """Return the owners of the buckets that a request draws from: the account and, with the same limit, its API key."""
    return [f"account {account_id}", *([f"key {key_id}"] if key_id else [])]


def token_buckets(account_id: str, key_id: str | None, limit: int, tokens: int) -> list[Bucket]:
    """Return the buckets of tokens per minute, with a cost of so many tokens."""
    return [Bucket(owner, "tokens", limit, tokens, group=account_id) for owner in bucket_owners(account_id, key_id)]


def token_draw_arguments(key_id: str | None, limit: int | None, estimated_tokens: int) -> dict[str, Any]:
    """Return the job argument that records the tokens drawn for it; none where there is no limit.

    No more than a full bucket was drawn, so no more is returned.
    """
    return {"drawn": {"tokens": min(estimated_tokens, limit), "limit": limit, "key_id": key_id}} if limit else {}


def correction_command(account_id: str, arguments: Mapping[str, Any], used: int) -> Command | None:
    """Return the Redis command that corrects a job's estimate to the `used` tokens; None where nothing was drawn."""
    drawn = arguments.get("drawn")
    if not drawn or used == drawn["tokens"]:
        return None
    buckets = token_buckets(account_id, drawn["key_id"], drawn["limit"], used - drawn["tokens"])
    return Command(buckets[0].key, ["EVALSHA", DRAW_SHA, *_command(buckets, forced=True)])


def _command(buckets: Sequence[Bucket], *, forced: bool) -> list[Any]:
    """Return the number of keys, the keys and the arguments of the script."""
    numbers: list[int] = []
    for bucket in buckets:
        reduced = bucket.reduced or Rate(0, 0)
        numbers += [bucket.limit, bucket.cost, bucket.period, bucket.advisory, reduced.limit, reduced.period]
    return [len(buckets), *(bucket.key for bucket in buckets), int(forced), *map(int, numbers)]

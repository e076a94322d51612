"""Append, read and trim a job's event stream in Redis.

Each job has two keys: a hash with `fence` and `claim` (the attempt that may append, and its claim) and `last` (sequence
number), and a stream with one entry `<sequence + 1>-0` per event. Appended events are also announced in a shard stream.

Redis may lose any of it: the archive in Postgres has the beginning and the checkpoints, the running attempt has the
events since, and readers fill gaps from both.

Postgres decides which claim is current. The fence in Redis can differ from it in both directions: Redis may have lost
it, and a standby that was promoted may lack the last claims, so that two workers have the same attempt number. So an
append that is refused is not the last word: the writer asks Postgres.
"""

import hashlib
import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID

import redis

from models.journal.events import Event, with_current_type
from models.journal.keys import hash_key, stream_key
from models.journal.shards import MAX_ENTRY, SHARD_LENGTH, SHARDS, announcement, shard_key
from models.platform.redis_client import is_cluster
from models.platform.redis_cluster import Command, run_script

#: Seconds after which an idle journal and an ended one expire. An ended one is archived in Postgres, so this only
#: serves clients that reconnect at once; at hundreds of turns per second it takes some hundred MB.
TTL = 86_400
TTL_ENDED = 120

#: Channel on which workers are notified of cancelled jobs.
CANCEL_CHANNEL = "sangha:cancel"


class Claim(NamedTuple):
    """A worker's right to write a journal. Attempt 0 has no claim: its events are written by web processes."""

    job_id: str
    attempt: int = 0
    claim_id: UUID | None = None


class Fence(IntEnum):
    """How an append treats the fence.

    HELD   refuse the append, unless the claim holds the fence
    TAKE   take it, unless a later attempt or another claim of the same attempt holds it
    SEIZE  take it from any other claim: Postgres has confirmed that this one is current
    """

    HELD = 0
    TAKE = 1
    SEIZE = 2


# Check the fence first, then that no events are missing, then append.
#
# The hash and the stream change together, but Redis may evict either. The end of the stream replaces a lost hash; an
# append that holds the fence is `lost` without its stream. A hash without `claim` was written by an earlier version,
# whose attempts have only a number.
#
# Taking the fence accepts a gap before the first event, which the archive fills; the entries before the gap are
# deleted, since readers expect a stream without gaps. `replace` deletes all entries: events of another claim are not
# skipped as if they were the same.
#
# `server` is the run of Redis that has all events of the journal. Taking the fence forgets another run's, and replacing
# the events forgets any: if events are lost, then every attempt finds so until one has written the event that says it.
# The next new event notes the run again, or `complete`.
#
# Opening events, which no attempt writes, are not sent to the shard: followers read them here. Neither are those of an
# append without a third key. The events of an ending are marked with `x`, the sequence number of a rewind in an append
# that is too large for the shard with `r`. `rewound` is that of the first rewind in the journal: a failover of Postgres
# may have lost the row's note.
#
# `archived` is for opening events that only the archive gets: `opening` notes the last of them, so that a journal
# without its stream is not `lost` while it has no others.
APPEND = """
local attempt, first, take, claim = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[7]
local replace, complete, endings = ARGV[4] == '1', ARGV[9] == '1', tonumber(ARGV[6])
local archived = ARGV[10] == '1'
local REWOUND = '{"type":"sangha:journal.rewound"'
local stored = redis.call('HMGET', KEYS[1], 'fence', 'last', 'server', 'claim', 'opening')
local fence, last, server = tonumber(stored[1] or -1), tonumber(stored[2] or -1), stored[3] or ''
local current, ended = nil, 0
local function run_id() return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') end
if take < 2 then
    if fence > attempt then return {'fenced', last} end
    if fence == attempt and stored[4] and stored[4] ~= claim then return {'fenced', last} end
end
if take == 0 then
    if fence < attempt or last + 1 < first then return {'lost', last} end
    if last > tonumber(stored[5] or -1) and redis.call('EXISTS', KEYS[2]) == 0 then return {'lost', last} end
else
    current = run_id()
    if replace or server ~= current then server = '' end
    local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
    if newest then
        last = math.max(last, tonumber(string.match(newest[1], '%d+')) - 1)
        ended = newest[2][5] and 1 or 0
    end
    if replace then
        last = first - 1
        redis.call('HDEL', KEYS[1], 'rewound')
    end
    if replace or last + 1 < first then redis.call('DEL', KEYS[2]) end
end
local lines, sequence, begin, rewound = {}, first, nil, ''
if archived and last < first - 1 then
    last = first - 1
    redis.call('HSET', KEYS[1], 'opening', last)
end
for index = 11, #ARGV, 2 do
    if sequence > last then
        begin = begin or sequence
        local id = (sequence + 1) .. '-0'
        if index > #ARGV - 2 * endings then
            redis.call('XADD', KEYS[2], id, 'e', ARGV[index], 'n', ARGV[index + 1], 'x', '1')
        else
            redis.call('XADD', KEYS[2], id, 'e', ARGV[index], 'n', ARGV[index + 1])
        end
        lines[#lines + 1] = ARGV[index]
        last = sequence
        if string.sub(ARGV[index], 1, #REWOUND) == REWOUND then
            rewound = sequence
            redis.call('HSETNX', KEYS[1], 'rewound', sequence)
        end
    end
    sequence = sequence + 1
end
if take > 0 then redis.call('HSET', KEYS[1], 'fence', attempt, 'claim', claim) end
if complete or (begin and server == '' and not replace) then server = current or run_id() end
redis.call('HSET', KEYS[1], 'last', last, 'server', server)
if take > 0 or endings > 0 or begin == 0 then
    redis.call('EXPIRE', KEYS[1], ARGV[5])
    redis.call('EXPIRE', KEYS[2], ARGV[5])
end
if KEYS[3] and begin and (attempt > 0 or begin > 0 or endings > 0) then
    local all = table.concat(lines, '\\n')
    if #all > MAX_ENTRY then all = '' end -- too large for the shard: followers of the job read the stream
    local entry = {'j', KEYS[1], 's', begin, 'e', all}
    if all == '' and rewound ~= '' then entry[7], entry[8] = 'r', rewound end
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], '*', unpack(entry))
end
return {'ok', last, current == stored[3] and 1 or 0, fence, begin or -1, ended}
""".replace("MAX_ENTRY", str(MAX_ENTRY))

#: The field of a journal's hash with the sequence number of its first rewind.
REWOUND_FIELD = "rewound"

APPEND_SHA = hashlib.sha1(APPEND.encode(), usedforsecurity=False).hexdigest()

AppendStatus = Literal["ok", "lost", "fenced"]


@dataclass(frozen=True, slots=True)
class AppendResult:
    """The result of an append.

    status       `ok`; `lost`, if Redis lacks earlier events or the fence; `fenced`, if another claim holds the fence
    last         the last sequence number in Redis
    same_server  this run of Redis has all events of the journal; otherwise the last ones may be missing
    fence        the attempt that held the fence before; -1 if Redis has lost it, or never had it
    first        the sequence number of the first event that was new; -1 without any
    ended        the journal had ended before, if this append has taken the fence
    """

    status: AppendStatus
    last: int
    same_server: bool = False
    fence: int = -1
    first: int = -1
    ended: bool = False

    def to_announce(self, claim: Claim, events: Sequence[Event]) -> Sequence[Event]:
        """Return those of the appended events that were new, unless they are opening events."""
        if self.first < 0 or (claim.attempt == 0 and self.first == 0 and not events[-1].ends):
            return ()
        return [event for event in events if event.sequence >= self.first]


def append_command(
    claim: Claim,
    events: Sequence[Event],
    fence: Fence = Fence.HELD,
    *,
    replace: bool = False,
    complete: bool = False,
    shards: int = SHARDS,
    tagged: bool = False,
    begin: int | None = None,
) -> list[Any]:
    """Return the append script's number of keys, keys and arguments.

    replace   delete the earlier entries
    complete  with these events, this run of Redis has all events of the journal
    shards    announce the events in one of so many shard streams; 0: do not announce them
    tagged    the server is a cluster; then the script does not announce them, since the shard may be on another node
    begin     opens a journal whose events before this number are only in the archive
    """
    first = events[0].sequence if events else begin or 0
    endings = _count_endings(events)
    keys = [hash_key(claim.job_id, tagged=tagged), stream_key(claim.job_id, tagged=tagged)]
    if shards and not tagged:
        keys.append(shard_key(claim.job_id, shards))
    memory = TTL_ENDED if endings else TTL
    arguments: list[Any] = [claim.attempt, first, int(fence), int(replace), memory, endings]
    arguments += [str(claim.claim_id or ""), SHARD_LENGTH, int(complete), int(begin is not None)]
    for event in events:
        arguments += (event.data, event.tokens)
    return [len(keys), *keys, *arguments]


def open_archived(
    client: redis.Redis, job_id: str, events: Sequence[Event], extra_commands: Sequence[Command] = ()
) -> None:
    """Open the journal of a new job whose first events only the archive gets: they would fill Redis while it waits."""
    begin, tagged = events[-1].sequence + 1, is_cluster(client)
    command = append_command(Claim(job_id), [], Fence.TAKE, complete=True, shards=0, tagged=tagged, begin=begin)
    run_script(client, APPEND_SHA, APPEND, command, extra_commands)


def _count_endings(events: Sequence[Event]) -> int:
    """Return how many of the last events were composed as an ending, if the journal ends with them."""
    if not (events and events[-1].ends):
        return 0
    return max(1, sum(1 for _ in itertools.takewhile(lambda event: event.ending, reversed(events))))


def parse_append_reply(reply: Any) -> AppendResult:
    """Parse the append script's reply."""
    status, last, *rest = reply
    if not rest:
        return AppendResult(status.decode(), int(last))
    same_server, fence, first, ended = rest
    return AppendResult(status.decode(), int(last), same_server == 1, int(fence), int(first), ended == 1)


def append(
    client: redis.Redis,
    claim: Claim,
    events: Sequence[Event],
    fence: Fence = Fence.TAKE,
    *,
    replace: bool = False,
    complete: bool = False,
    shards: int = SHARDS,
    extra_commands: Sequence[Command] = (),
) -> AppendResult:
    """Append events and take the fence. Without events, only take the fence.

    extra_commands  commands that are executed in the same round trip, whose errors are ignored
    """
    tagged = is_cluster(client)
    command = append_command(claim, events, fence, replace=replace, complete=complete, shards=shards, tagged=tagged)
    result = parse_append_reply(run_script(client, APPEND_SHA, APPEND, command, extra_commands))
    if tagged and shards and (unannounced := result.to_announce(claim, events)):
        with suppress(redis.RedisError):  # followers notice the gap
            client.execute_command(*announcement(claim.job_id, unannounced, shards))
    return result


@dataclass(frozen=True, slots=True)
class JournalEnd:
    """The last sequence number in Redis, or -1, and that of the first rewind, or None."""

    last: int = -1
    rewound_at: int | None = None


def read_end(client: redis.Redis, job_id: str) -> JournalEnd:
    """Return where a journal ends; as if it were empty if Redis is unavailable."""
    try:
        last, rewound_at = client.hmget(hash_key(job_id, tagged=is_cluster(client)), ["last", REWOUND_FIELD])
    except redis.RedisError:
        return JournalEnd()
    return JournalEnd(int(last or -1), int(rewound_at) if rewound_at else None)


def last_sequence(client: redis.Redis, job_id: str) -> int:
    """Return the last sequence number in Redis, or -1, also if Redis is unavailable."""
    return read_end(client, job_id).last


def delete(client: redis.Redis, job_id: str) -> None:
    """Delete a journal from Redis."""
    tagged = is_cluster(client)
    client.delete(hash_key(job_id, tagged=tagged), stream_key(job_id, tagged=tagged))


def read_events(client: redis.Redis, job_id: str, after: int = -1) -> list[Event]:
    """Read the events above the sequence number `after`. Redis may have lost the first of them."""
    key = stream_key(job_id, tagged=is_cluster(client))
    return parse_entries(client.xrange(key, min=f"{after + 2}-0"))


def parse_entries(entries: Any) -> list[Event]:
    """Parse entries of a job's stream."""
    return [
        Event(int(entry_id.partition(b"-")[0]) - 1, with_current_type(fields[b"e"]), int(fields[b"n"]), b"x" in fields)
        for entry_id, fields in entries
    ]


def publish_cancellations(client: redis.Redis, job_ids: Sequence[str]) -> None:
    """Notify the workers of cancelled jobs."""
    if job_ids:
        client.publish(CANCEL_CHANNEL, "\n".join(job_ids))

"""Append, read and trim a job's event stream in Redis.

Each job has two keys: a hash with `fence` (the attempt that may append) and `last` (sequence number), and a stream with
one entry `<sequence + 1>-0` per event. Appended events also go to one of a few shard streams, through which a web
process follows all jobs with one blocking read.

Redis may lose any of it: the archive in Postgres has the beginning and the checkpoints, the running attempt has the
events since, and readers fill gaps from both.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from models.journal.events import Event, with_current_type

#: Number of shard streams, and entries that each keeps for late readers.
SHARDS = 4
SHARD_LENGTH = 4096

#: Seconds after which an idle journal and an ended one expire. An ended one is archived in Postgres, so this only
#: serves clients that reconnect at once; at hundreds of turns per second it takes some hundred MB.
TTL = 86_400
TTL_ENDED = 120

#: Channel on which workers are notified of cancelled jobs.
CANCEL_CHANNEL = "sangha:cancel"

# Check the fence first, then that no events are missing, then append. `force` raises the fence to the attempt and
# accepts a gap before the first event, which the archive fills; the entries before the gap are deleted, since readers
# expect a stream without gaps. Opening events, which no attempt writes, are not sent to the shard: followers read them
# here.
APPEND = """
local attempt, first, force, ended = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', ARGV[6] == '1'
local stored = redis.call('HMGET', KEYS[1], 'fence', 'last', 'server')
local fence, last, server = tonumber(stored[1] or -1), tonumber(stored[2] or -1), stored[3]
if fence > attempt then return {'fenced', last} end
if not force then
    if fence < attempt then return {'lost', last} end
    if last + 1 < first then return {'lost', last} end
else
    server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
    if last + 1 < first then redis.call('DEL', KEYS[2]) end
end
local lines, sequence, begin = {}, first, nil
for index = 7, #ARGV, 2 do
    if sequence > last then
        begin = begin or sequence
        redis.call('XADD', KEYS[2], (sequence + 1) .. '-0', 'e', ARGV[index], 'n', ARGV[index + 1])
        lines[#lines + 1] = ARGV[index]
        last = sequence
    end
    sequence = sequence + 1
end
redis.call('HSET', KEYS[1], 'fence', attempt, 'last', last, 'server', server)
if force or ended or begin == 0 then
    redis.call('EXPIRE', KEYS[1], ARGV[4])
    redis.call('EXPIRE', KEYS[2], ARGV[4])
end
if begin and (attempt > 0 or begin > 0 or ended) then
    local all = table.concat(lines, '\\n')
    if #all > 65536 then all = '' end -- too large for the shard: followers of the job read the stream
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'j', KEYS[1], 's', begin, 'e', all)
end
return {'ok', last, server == stored[3] and 1 or 0}
"""

APPEND_SHA = hashlib.sha1(APPEND.encode(), usedforsecurity=False).hexdigest()

AppendStatus = Literal["ok", "lost", "fenced"]


@dataclass(frozen=True, slots=True)
class AppendResult:
    """The result of an append: `ok`; `lost`, if Redis lacks earlier events; `fenced`, if a newer attempt exists.

    same_server  Redis was not restarted since the last forced append; otherwise its last events may be missing
    """

    status: AppendStatus
    last: int
    same_server: bool = False


def hash_key(job_id: str) -> str:
    """Return the key of a journal's hash."""
    return f"sangha:journal:{job_id}"


def stream_key(job_id: str) -> str:
    """Return the key of a job's event stream."""
    return f"sangha:events:{job_id}"


def shard_keys() -> list[str]:
    """Return the keys of the shard streams."""
    return [f"sangha:shard:{number}" for number in range(SHARDS)]


def job_id_of(journal_key: str) -> str:
    """Return the job id in the key of a journal's hash."""
    return journal_key.removeprefix("sangha:journal:")


def _shard_of(job_id: str) -> str:
    return f"sangha:shard:{zlib.crc32(job_id.encode()) % SHARDS}"


def append_command(job_id: str, attempt: int, events: Sequence[Event], *, force: bool = False) -> list[Any]:
    """Return the append script's number of keys, keys and arguments."""
    first = events[0].sequence if events else 0
    ended = bool(events) and events[-1].ends
    memory = TTL_ENDED if ended else TTL
    arguments: list[Any] = [attempt, first, int(force), memory, SHARD_LENGTH, int(ended)]
    for event in events:
        arguments += (event.data, event.tokens)
    return [3, hash_key(job_id), stream_key(job_id), _shard_of(job_id), *arguments]


def parse_append_reply(reply: Any) -> AppendResult:
    """Parse the append script's reply."""
    status, last, *same = reply
    return AppendResult(status.decode(), int(last), same == [1])


def append(client: redis.Redis, job_id: str, attempt: int, events: Sequence[Event]) -> AppendResult:
    """Append events and raise the fence to `attempt`. Without events, only take the fence."""
    command = append_command(job_id, attempt, events, force=True)
    try:
        return parse_append_reply(client.evalsha(APPEND_SHA, *command))
    except redis.exceptions.NoScriptError:
        return parse_append_reply(client.eval(APPEND, *command))


def last_sequence(client: redis.Redis, job_id: str) -> int:
    """Return the last sequence number in Redis, or -1, also if Redis is unavailable."""
    try:
        return int(client.hget(hash_key(job_id), "last") or -1)
    except redis.RedisError:
        return -1


def delete(client: redis.Redis, job_id: str) -> None:
    """Delete a journal from Redis."""
    client.delete(hash_key(job_id), stream_key(job_id))


def read_events(client: redis.Redis, job_id: str, after: int = -1) -> list[Event]:
    """Read the events above the sequence number `after`. Redis may have lost the first of them."""
    return parse_entries(client.xrange(stream_key(job_id), min=f"{after + 2}-0"))


def parse_entries(entries: Any) -> list[Event]:
    """Parse entries of a job's stream."""
    return [
        Event(int(entry_id.partition(b"-")[0]) - 1, with_current_type(fields[b"e"]), int(fields[b"n"]))
        for entry_id, fields in entries
    ]


def parse_shard_entry(fields: Any) -> tuple[str, int, list[bytes]]:
    """Parse a shard's entry: job id, first sequence number, and each event's JSON unless that was too large."""
    lines = [with_current_type(line) for line in fields[b"e"].split(b"\n")] if fields[b"e"] else []
    return job_id_of(fields[b"j"].decode()), int(fields[b"s"]), lines


def publish_cancellations(client: redis.Redis, job_ids: Sequence[str]) -> None:
    """Notify the workers of cancelled jobs."""
    if job_ids:
        client.publish(CANCEL_CHANNEL, "\n".join(job_ids))

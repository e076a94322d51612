"""The journal: the events of a job in Redis, appended by whoever holds its fence, and followed while it grows.

Two keys a job: a hash with its `fence` (the attempt that may append) and `last` (sequence number), and a stream with an
entry `<sequence + 1>-0` an event. What is appended also goes to one of a few shard streams, from which each web process
follows all jobs with one blocked read.

Redis may forget any of it: the archive in Postgres has the beginning and the checkpoints, the running attempt holds
what came after, and readers fill gaps from both.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from models.journal.events import Event, with_current_type

#: How many shard streams there are, and about how many appends each remembers for those who read late.
SHARDS = 4
SHARD_LENGTH = 4096

#: Seconds that Redis remembers a journal that nobody appends to, and one that has ended: Postgres has it by then, so
#: this is for those who come back at once, and hundreds of turns a second take no more than some hundred MB.
TTL = 86_400
TTL_ENDED = 120

#: Where workers hear of cancelled jobs.
CANCEL_CHANNEL = "sangha:cancel"

# The order of checks matters: the fence first, then what is known of the past, then the append.
# `force` raises the fence to the attempt and accepts a gap before the first event, which the archive fills; what stood
# before the gap goes, for readers take a stream to have none inside.
# Nobody has to be told of an opening, which no attempt writes: whoever follows by then has it, or reads it here.
APPEND = """
local attempt, first, force, ended = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', ARGV[6] == '1'
local known = redis.call('HMGET', KEYS[1], 'fence', 'last', 'server')
local fence, last, server = tonumber(known[1] or -1), tonumber(known[2] or -1), known[3]
if fence > attempt then return {'fenced', last} end
if not force then
    if fence < attempt then return {'lost', last} end
    if last + 1 < first then return {'lost', last} end
else
    server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
    if last + 1 < first then redis.call('DEL', KEYS[2]) end
end
local lines, sequence, begin = {}, first, nil
for place = 7, #ARGV, 2 do
    if sequence > last then
        begin = begin or sequence
        redis.call('XADD', KEYS[2], (sequence + 1) .. '-0', 'e', ARGV[place], 'n', ARGV[place + 1])
        lines[#lines + 1] = ARGV[place]
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
    if #all > 65536 then all = '' end -- too much for everybody: who follows the job reads it there
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'j', KEYS[1], 's', begin, 'e', all)
end
return {'ok', last, server == known[3] and 1 or 0}
"""

APPEND_SHA = hashlib.sha1(APPEND.encode(), usedforsecurity=False).hexdigest()

AppendStatus = Literal["ok", "lost", "fenced"]


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What Redis said: `ok`; `lost` when it does not know what came before; `fenced` when a later attempt writes.

    same_server  Redis has not been started anew since it was last told this; else its end may be missing
    """

    status: AppendStatus
    last: int
    same_server: bool = False


def hash_key(job_id: str) -> str:
    """The hash of a job's journal."""
    return f"sangha:journal:{job_id}"


def stream_key(job_id: str) -> str:
    """The stream of a job's events."""
    return f"sangha:events:{job_id}"


def shard_keys() -> list[str]:
    """The streams that all appends go to."""
    return [f"sangha:shard:{number}" for number in range(SHARDS)]


def job_id_of(journal_key: str) -> str:
    """The job id in a hash's key."""
    return journal_key.removeprefix("sangha:journal:")


def _shard_of(job_id: str) -> str:
    return f"sangha:shard:{zlib.crc32(job_id.encode()) % SHARDS}"


def append_command(job_id: str, attempt: int, events: Sequence[Event], *, force: bool = False) -> list[Any]:
    """The keys and arguments of the append script, the number of keys first."""
    first = events[0].sequence if events else 0
    ended = bool(events) and events[-1].ends
    memory = TTL_ENDED if ended else TTL
    arguments: list[Any] = [attempt, first, int(force), memory, SHARD_LENGTH, int(ended)]
    for event in events:
        arguments += (event.data, event.tokens)
    return [3, hash_key(job_id), stream_key(job_id), _shard_of(job_id), *arguments]


def parse_append_reply(reply: Any) -> AppendResult:
    """The script's reply, in words."""
    status, last, *same = reply
    return AppendResult(status.decode(), int(last), same == [1])


def append(client: redis.Redis, job_id: str, attempt: int, events: Sequence[Event]) -> AppendResult:
    """Append at once, raising the fence to `attempt`. With no events it only takes the fence and tells the last."""
    command = append_command(job_id, attempt, events, force=True)
    try:
        return parse_append_reply(client.evalsha(APPEND_SHA, *command))
    except redis.exceptions.NoScriptError:
        return parse_append_reply(client.eval(APPEND, *command))


def last_sequence(client: redis.Redis, job_id: str) -> int:
    """The last sequence number that Redis knows of, or -1, also when it does not answer."""
    try:
        return int(client.hget(hash_key(job_id), "last") or -1)
    except redis.RedisError:
        return -1


def delete(client: redis.Redis, job_id: str) -> None:
    """Delete a journal from Redis."""
    client.delete(hash_key(job_id), stream_key(job_id))


def read_events(client: redis.Redis, job_id: str, after: int = -1) -> list[Event]:
    """What Redis remembers above the sequence number `after`; it may begin later than asked."""
    return parse_entries(client.xrange(stream_key(job_id), min=f"{after + 2}-0"))


def parse_entries(entries: Any) -> list[Event]:
    """The events in entries of a job's stream."""
    return [
        Event(int(entry_id.partition(b"-")[0]) - 1, with_current_type(fields[b"e"]), int(fields[b"n"]))
        for entry_id, fields in entries
    ]


def parse_shard_entry(fields: Any) -> tuple[str, int, list[bytes]]:
    """A shard's entry: the job, the first sequence number, and each event's bytes, or none where they were too many."""
    lines = [with_current_type(line) for line in fields[b"e"].split(b"\n")] if fields[b"e"] else []
    return job_id_of(fields[b"j"].decode()), int(fields[b"s"]), lines


def publish_cancellations(client: redis.Redis, job_ids: Sequence[str]) -> None:
    """Tell the workers that these jobs are to stop."""
    if job_ids:
        client.publish(CANCEL_CHANNEL, "\n".join(job_ids))

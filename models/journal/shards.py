"""The shard streams, through which the web processes follow all jobs.

Each append is announced in one of a few streams, of which every web process reads all that may exist. So each writer
may use any number of them, and a change of `SANGHA_STREAM_SHARDS` needs no coordination: while old and new workers run
side by side, entries of one job may be out of order, which its followers notice as a gap.
"""

import zlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import redis

from models.journal.events import REWOUND, Event, with_current_type
from models.journal.keys import hash_key, job_id_of

#: Shard streams that web processes read, the number that workers write to by default, and entries that each keeps for
#: late readers.
MAX_SHARDS = 8
SHARDS = 4
SHARD_LENGTH = 4096

#: Seconds for which an entry is kept, as long as the journal of an ended job: its text must not outlive the turn's.
KEPT = 120

#: Bytes of events above which an entry has none, and followers read the job's stream: the entry goes to all web
#: processes, of which usually one follows the job. It also bounds the shards' memory to 256 MB.
MAX_ENTRY = 16_384


def shard_keys() -> list[str]:
    """Return the keys of all shard streams that may exist."""
    return [f"sangha:shard:{number}" for number in range(MAX_SHARDS)]


def shard_key(job_id: str, shards: int = SHARDS) -> str:
    """Return the key of a job's shard stream, one of `shards`."""
    return f"sangha:shard:{zlib.crc32(job_id.encode()) % shards}"


class Appended(NamedTuple):
    """Events that were appended together.

    first    the sequence number of the first one
    lines    their JSON; empty if they are too large for the shard
    rewound  the sequence number of a rewind among events that are too large
    """

    first: int
    lines: Sequence[bytes]
    rewound: int | None = None


def parse_shard_entry(fields: Any) -> Appended:
    """Parse a shard's entry; `shard_entry_job` returns its job."""
    lines = [with_current_type(line) for line in fields[b"e"].split(b"\n")] if fields[b"e"] else []
    return Appended(int(fields[b"s"]), lines, int(fields[b"r"]) if b"r" in fields else None)


def shard_entry_job(fields: Any) -> str:
    """Return the id of the job whose events a shard's entry has."""
    return job_id_of(fields[b"j"].decode())


def announcement(job_id: str, events: Sequence[Event], shards: int = SHARDS) -> list[Any]:
    """Return the command that announces appended events, as the append script does where it reaches the shard."""
    lines = b"\n".join(event.data for event in events)
    fields = ["j", hash_key(job_id, tagged=True), "s", events[0].sequence, "e", lines]
    if len(lines) > MAX_ENTRY:
        rewinds = [event.sequence for event in events if event.type == REWOUND]
        fields = [*fields[:-1], b"", *(["r", rewinds[-1]] if rewinds else [])]
    return ["XADD", shard_key(job_id, shards), "MAXLEN", "~", SHARD_LENGTH, "*", *fields]


# The newest entry stays, since readers would take an older one for a loss: one without job and text takes its place.
# `TIME` is the clock of the entries' ids.
TRIM = """
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not newest then return 0 end
local time = redis.call('TIME')
local cutoff = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1] * 1000
if newest[2][2] ~= '' and tonumber(string.match(newest[1], '%d+')) <= cutoff then
    newest = {redis.call('XADD', KEYS[1], '*', 'j', '', 's', 0, 'e', '')}
end
local first = string.format('%.0f', cutoff + 1)
if tonumber(string.match(newest[1], '%d+')) <= cutoff then first = newest[1] end
return redis.call('XTRIM', KEYS[1], 'MINID', first)
"""

# Takes some ten milliseconds for a full shard. Here too the newest entry stays, without a job and text.
DELETE = """
local deleted, wanted, first = 0, {}, '-'
for _, job in ipairs(ARGV) do wanted[job] = true end
redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 'j', '', 's', 0, 'e', '')
while true do
    local entries = redis.call('XRANGE', KEYS[1], first, '+', 'COUNT', 128)
    for _, entry in ipairs(entries) do
        if wanted[string.match(entry[2][2], '([^:{}]*)}?$')] then
            deleted = deleted + redis.call('XDEL', KEYS[1], entry[1])
        end
    end
    if #entries < 128 then return deleted end
    first = '(' .. entries[#entries][1]
end
"""


def trim(client: redis.Redis, kept: float = KEPT) -> int:
    """Delete the entries of all shards that are older than `kept` seconds. Returns how many, approximately."""
    return sum(int(client.eval(TRIM, 1, key, kept)) for key in shard_keys())


def delete_entries(client: redis.Redis, job_ids: Collection[str]) -> int:
    """Delete the entries of some jobs from all shards. Returns how many."""
    return sum(int(client.eval(DELETE, 1, key, *job_ids)) for key in shard_keys()) if job_ids else 0

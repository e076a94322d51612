"""The shard streams, through which the web processes follow all jobs.

Each append is announced in one of a few streams, of which every web process reads all that may exist. So each writer
may use any number of them, and a change of `SANGHA_STREAM_SHARDS` needs no coordination: while old and new workers run
side by side, entries of one job may be out of order, which its followers notice as a gap.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from models.journal.events import REWOUND, Event, with_current_type
from models.journal.keys import hash_key, job_id_of

#: Shard streams that web processes read, the number that workers write to by default, and entries that each keeps for
#: late readers.
MAX_SHARDS = 8
SHARDS = 4
SHARD_LENGTH = 4096

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

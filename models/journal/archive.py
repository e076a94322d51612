"""The archive of the journal in Postgres.

A chunk is written when a job is enqueued, at checkpoints while it runs, and when it ends, in the transaction of that
step. Chunks are contiguous; together they replay the whole journal. When the ended job is moved to `ended_jobs`, its
chunks are packed into one compressed value there.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.journal.events import Event, from_lines, to_lines
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import Fenced

# An existing chunk was written by the same attempt, whose commit was not confirmed or whose heartbeat was faster. It is
# a prefix of this one.
INSERT = """
INSERT INTO job_events (job_id, first_sequence, last_sequence, tokens, events, event_tokens)
VALUES (%(job_id)s, %(first)s, %(last)s, %(tokens)s, %(events)s, %(event_tokens)s::integer[])
ON CONFLICT (job_id, first_sequence) DO UPDATE
    SET last_sequence = excluded.last_sequence, tokens = excluded.tokens, events = excluded.events,
        event_tokens = excluded.event_tokens
    WHERE excluded.last_sequence >= job_events.last_sequence
"""


def archive(connection: Connection, job_id: str, events: Sequence[Event]) -> None:
    """Write events as a chunk in the caller's transaction. The caller has checked the fence."""
    connection.execute(INSERT, insert_parameters(job_id, events))


def insert_parameters(job_id: str, events: Sequence[Event]) -> dict[str, Any]:
    """Return the parameters of `INSERT`."""
    tokens = [event.tokens for event in events]
    return {
        "job_id": job_id,
        "first": events[0].sequence,
        "last": events[-1].sequence,
        "tokens": sum(tokens),
        "events": to_lines(events).decode(),
        "event_tokens": tokens if any(tokens) else None,
    }


def archive_missing(connection: Connection, job_id: str, events: Sequence[Event], last: int | None = None) -> None:
    """Archive those of an attempt's events that the archive lacks, after `last` or else what it has now.

    Those can be more than the attempt knows of: a failover may have lost its checkpoints, but not its claim. Raises
    Fenced if the archive lacks earlier ones too: the next attempt finds them in Redis.
    """
    after = last_of(fetch_one(connection, LAST, {"job_id": job_id})) if last is None else last
    missing = [event for event in events if event.sequence > after]
    if missing and missing[0].sequence > after + 1:
        raise Fenced(f"The archive of {job_id} ends with event {after}, before {missing[0].sequence}.")
    if missing:
        archive(connection, job_id, missing)


@dataclass(frozen=True, slots=True)
class ArchivedEvents:
    """The archived events of a journal, and the number of generated tokens that they carry."""

    events: list[Event]
    tokens: int

    @property
    def last(self) -> int:
        """The sequence number of the last event, or -1."""
        return self.events[-1].sequence if self.events else -1


# The chunks with events above a sequence number.
READ = """
SELECT first_sequence, tokens, events, event_tokens FROM job_events
WHERE job_id = %(job_id)s AND last_sequence > %(after)s
ORDER BY first_sequence
"""


def read_chunks(connection: Connection, job_id: str, after: int = -1) -> ArchivedEvents:
    """Read the events of an unfinished job with a sequence number above `after`. `tokens` counts whole chunks."""
    rows = fetch_all(connection, READ, {"job_id": job_id, "after": after})
    events = [event for row in rows for event in _with_tokens(row)]
    return ArchivedEvents([event for event in events if event.sequence > after], sum(row["tokens"] for row in rows))


def _with_tokens(chunk: Mapping[str, Any]) -> list[Event]:
    """Return the events of a chunk; of one by an earlier version, the last event has all tokens."""
    events = from_lines(chunk["first_sequence"], chunk["events"].encode())
    tokens = chunk["event_tokens"] or [*[0] * (len(events) - 1), chunk["tokens"]]
    return [replace(event, tokens=count) for event, count in zip(events, tokens, strict=True)]


# A second statement: usually the job has chunks, and `ended_jobs` has several partitions to look at. Since jobs move in
# one direction only, none is missed in between.
READ_PACKED = """
SELECT tokens, events, last_sequence FROM ended_jobs
WHERE id = %(job_id)s AND last_sequence > %(after)s AND events IS NOT NULL
"""


def read_archive(connection: Connection, job_id: str, after: int = -1) -> ArchivedEvents:
    """Read the events of any job with a sequence number above `after`. `tokens` counts whole chunks."""
    archived = read_chunks(connection, job_id, after)
    if archived.events or not (row := fetch_one(connection, READ_PACKED, {"job_id": job_id, "after": after})):
        return archived
    events = unpack(row["events"])
    return ArchivedEvents([event for event in events if event.sequence > after], row["tokens"])


FIRST = "SELECT events FROM job_events WHERE job_id = %(job_id)s AND first_sequence = 0"


def read_first_event(connection: Connection, job_id: str) -> Event | None:
    """Return the first event of any job, or None if the archive has none of its events."""
    if (row := fetch_one(connection, FIRST, {"job_id": job_id})) is not None:
        return from_lines(0, row["events"].encode())[0]
    packed = fetch_one(connection, READ_PACKED, {"job_id": job_id, "after": -1})
    return unpack(packed["events"])[0] if packed else None


LAST = "SELECT coalesce(max(last_sequence), -1) AS last FROM job_events WHERE job_id = %(job_id)s"


LAST_PACKED = "SELECT coalesce(max(last_sequence), -1) AS last FROM ended_jobs WHERE id = %(job_id)s"


def last_archived(connection: Connection, job_id: str) -> int:
    """Return the sequence number of the last archived event of any job, or -1."""
    last = last_of(fetch_one(connection, LAST, {"job_id": job_id}))
    return last if last >= 0 else last_of(fetch_one(connection, LAST_PACKED, {"job_id": job_id}))


def last_of(row: Mapping[str, Any] | None) -> int:
    """Return the sequence number in a row of LAST."""
    assert row is not None
    return int(row["last"])


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row of `job_events`."""

    first_sequence: int
    last_sequence: int
    tokens: int
    events: str


@dataclass(frozen=True, slots=True)
class PackedEvents:
    """The events of a whole journal as one value, and what is read without unpacking it."""

    data: bytes
    last_sequence: int
    tokens: int


#: An answer that was begun again: the tokens until then are not part of it.
RESTARTED = re.compile(rb'^\{"type":"sangha:answer.restarted".*"discarded_tokens":(\d+)', re.MULTILINE)


def pack(chunks: Sequence[Chunk]) -> PackedEvents:
    """Compress the chunks of a journal: the lines of all events, as zlib. Its tokens are those that were kept."""
    lines = "\n".join(chunk.events for chunk in chunks).encode()
    tokens = sum(chunk.tokens for chunk in chunks) - sum(map(int, RESTARTED.findall(lines)))
    return PackedEvents(zlib.compress(lines), chunks[-1].last_sequence, tokens)


# It is the second key of each event, after its type, which has no quote.
SEQUENCE = re.compile(rb'\{"type":"[^"]*","sequence_number":(\d+)')


def unpack(data: bytes) -> list[Event]:
    """Return the events of `PackedEvents.data`, with the sequence numbers that they state."""
    return [event for line in zlib.decompress(data).split(b"\n") for event in from_lines(_sequence(line), line)]


def _sequence(line: bytes) -> int:
    match = SEQUENCE.match(line)
    if match is None:
        raise ValueError(f"An archived event has no sequence number: {line[:80]!r}")
    return int(match[1])

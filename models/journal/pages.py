"""Read journals by pages of bounded bytes, so that a reader that is slow holds little memory.

A page has at least one event, and none after the one with which it exceeds its size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.journal.archive import READ_PACKED, unpack
from models.journal.events import Event, from_lines
from models.journal.journal import parse_entries
from models.platform.database import Connection, fetch_all, fetch_one

#: Bytes of events after which a page ends.
PAGE_BYTES = 262_144

# KEYS: a job's stream. ARGV: the first and the last entry to read, and the bytes of events after which to stop.
READ_STREAM = """
local page, bytes, first = {}, 0, ARGV[1]
while true do
    local entries = redis.call('XRANGE', KEYS[1], first, ARGV[2], 'COUNT', 16)
    for _, entry in ipairs(entries) do
        page[#page + 1] = entry
        bytes = bytes + #entry[2][2]
        if bytes >= tonumber(ARGV[3]) then return page end
    end
    if #entries < 16 then return page end
    first = (tonumber(string.match(entries[16][1], '%d+')) + 1) .. '-0'
end
"""


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive events of a journal; `more`: others may follow them."""

    events: Sequence[Event]
    more: bool = False

    @property
    def size(self) -> int:
        """The bytes of the events."""
        return size_of(self.events)


def size_of(events: Iterable[Event]) -> int:
    """Return the bytes of events."""
    return sum(len(event.data) for event in events)


def parse_page(reply: Any, limit: int) -> Page:
    """Parse the reply to READ_STREAM."""
    events = parse_entries([(entry_id, dict(zip(flat[::2], flat[1::2], strict=True))) for entry_id, flat in reply])
    return Page(events, size_of(events) >= limit)


# The first chunks with events above a sequence number, until they have this many bytes.
READ_CHUNKS = """
SELECT first_sequence, events FROM (
    SELECT first_sequence, events,
           sum(octet_length(events)) OVER (ORDER BY first_sequence) - octet_length(events) AS before
    FROM job_events WHERE job_id = %(job_id)s AND last_sequence > %(after)s) AS chunks
WHERE before < %(limit)s
ORDER BY first_sequence
"""


def read_archived_page(connection: Connection, job_id: str, after: int, limit: int = PAGE_BYTES) -> Page:
    """Read the first archived events of any job above the sequence number `after`."""
    rows = fetch_all(connection, READ_CHUNKS, {"job_id": job_id, "after": after, "limit": limit})
    if rows:
        chunks = [(row["first_sequence"], row["events"].encode()) for row in rows]
        page = _first_page([event for chunk in chunks for event in from_lines(*chunk)], after, limit)
        # Of a large chunk the page may have the last events only: then the next chunk was not read.
        return page if sum(len(lines) for _, lines in chunks) < limit else replace(page, more=True)
    packed = fetch_one(connection, READ_PACKED, {"job_id": job_id, "after": after})
    return _first_page(unpack(packed["events"]), after, limit) if packed else Page([])


def _first_page(events: Iterable[Event], after: int, limit: int) -> Page:
    page, size = [], 0
    for event in events:
        if event.sequence > after:
            page.append(event)
            size += len(event.data)
        if size >= limit:
            return Page(page, more=True)
    return Page(page)

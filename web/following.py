"""Event streams of jobs: where a client goes on, and the frames from there."""

from collections.abc import AsyncIterator

from pydantic import Field
from starlette.concurrency import run_in_threadpool

from models.archive import read_archive
from models.errors import InvalidRequest
from models.journal import last_sequence
from web.routing import Call
from web.sse import Frame, frame
from web.validation import Query


class Cursor(Query):
    """The query of every event stream."""

    starting_after: int | None = Field(None, ge=-1)


async def follow_frames(call: Call, job_id: str, after: int = -1) -> AsyncIterator[Frame]:
    """The events of a job above a sequence number, ready for the wire; what came together goes together."""
    async for events in call.platform.tail.follow(job_id, after):
        yield b"".join([frame(event.sequence, event.data) for event in events])


async def position(call: Call, job_id: str, cursor: Cursor, *, rewound_at: int | None = None) -> int:
    """The sequence number behind which the client goes on: its query's, else the one of `Last-Event-ID`, else -1.

    Raises InvalidRequest for one that the journal has not reached. A client that had heard what is lost is taken back
    to the event that says so.
    """
    after = cursor.starting_after
    name = "starting_after"
    if after is None:
        name = "Last-Event-ID"
        after = _last_event_id(call)
    if after < 0:
        return -1
    if rewound_at is not None and after >= rewound_at:
        return rewound_at - 1
    last = await run_in_threadpool(_last, call, job_id)
    if after > last:
        raise InvalidRequest(f"'{name}' is {after}, but the stream has come to {last} only.", param=name)
    return after


def _last_event_id(call: Call) -> int:
    given = call.headers.get("last-event-id", "").strip()
    if given and not (given.isascii() and given.isdigit() and len(given) <= 9):
        raise InvalidRequest("'Last-Event-ID' should be a sequence number.", param="Last-Event-ID")
    return int(given) if given else -1


def _last(call: Call, job_id: str) -> int:
    """The last sequence number that anybody knows of; what Redis has forgotten the archive may know."""
    with call.platform.database.connection() as connection:
        archived = read_archive(connection, job_id).last
    return max(archived, last_sequence(call.platform.redis, job_id))

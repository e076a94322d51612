"""Event streams of jobs: where a client goes on, and the frames from there."""

from collections.abc import AsyncIterator, Callable

from pydantic import Field
from starlette.concurrency import run_in_threadpool

from models.jobs.jobs import read
from models.journal.archive import last_archived
from models.journal.events import Event
from models.journal.journal import last_sequence
from models.platform.errors import InvalidRequest, Unavailable
from web.http.afterwards import afterwards
from web.http.validation import Query
from web.routing import Call
from web.streams.sse import Frame, frame

#: Events of a job as a `Tail` tells them: groups that came together.
Told = AsyncIterator[list[Event]]


class Cursor(Query):
    """The query of every event stream."""

    starting_after: int | None = Field(None, ge=-1)


def follow_frames(
    call: Call, job_id: str, after: int = -1, *, when_read: Callable[[], object] | None = None
) -> AsyncIterator[Frame]:
    """The events of a job above a sequence number, as `frames`."""
    return frames(call.platform.tail.follow(job_id, after), when_read=when_read)


async def frames(told: Told, *, when_read: Callable[[], object] | None = None) -> AsyncIterator[Frame]:
    """Events ready for the wire; what came together goes together.

    `when_read` is called afterwards, in a thread, once the last event there will be has been written to the client.
    """
    async for events in told:
        yield b"".join([frame(event.sequence, event.data) for event in events])
        if when_read is not None and events[-1].ends:
            afterwards(when_read)


async def position(call: Call, job_id: str, cursor: Cursor) -> int:
    """The sequence number behind which the client goes on: its query's, else the one of `Last-Event-ID`, else -1.

    Raises InvalidRequest for one that the journal has not reached, and Unavailable when nobody can tell. A client that
    had heard what is lost is taken back to the event that says so.
    """
    after, name = cursor.starting_after, "starting_after"
    if after is None:
        after, name = _last_event_id(call), "Last-Event-ID"
    return await run_in_threadpool(_reached, call, job_id, after, name) if after >= 0 else -1


def _last_event_id(call: Call) -> int:
    given = call.headers.get("last-event-id", "").strip()
    if given and not (given.isascii() and given.isdigit() and len(given) <= 9):
        raise InvalidRequest("'Last-Event-ID' should be a sequence number.", param="Last-Event-ID")
    return int(given) if given else -1


def _reached(call: Call, job_id: str, after: int, name: str) -> int:
    """The cursor as it holds. What Redis knows is read first: a rewind is noted in the row before Redis hears of it."""
    recent = last_sequence(call.platform.redis, job_id)
    with call.platform.database.connection() as connection:
        job = read(connection, job_id, call.caller.account_id)
        archived = last_archived(connection, job_id)
    if job is not None and job.rewound_at is not None and after >= job.rewound_at:
        return job.rewound_at - 1
    last = max(archived, recent)
    if after <= last:
        return after
    if recent < 0 and job is not None and not job.ended:
        # Redis is away or has forgotten: the running attempt, or the next one, is about to write it again.
        raise Unavailable("The stream can't go on for now; its journal is being repaired.")
    raise InvalidRequest(f"'{name}' is {after}, but the stream has come to {last} only.", param=name)

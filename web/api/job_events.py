"""Event streams of jobs: find the position to resume from, and encode the events from there."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from functools import partial

from pydantic import Field

from models.accounts.ownership import Access
from models.jobs.jobs import Job, read
from models.jobs.trees import members
from models.journal.archive import last_archived
from models.journal.events import Event
from models.journal.journal import read_end
from models.platform.errors import InvalidRequest, Unavailable
from web.api.request import Request
from web.http.disconnects import run_in_background
from web.http.queries import RequestQuery
from web.http.threads import run_in_thread
from web.streams.sse import Frame, frames
from web.streams.tree import Positions, TreeStream, decode_cursor

#: A job's events as `Tail.follow` yields them: in batches that arrived together.
EventBatches = AsyncIterator[list[Event]]


class StreamCursor(RequestQuery):
    """The query of every event stream.

    With `tree` the events of the job and of all jobs below it are one stream. Its ids are cursors, to be sent as
    `Last-Event-ID` or as `cursor`.
    """

    starting_after: int | None = Field(None, ge=-1)
    tree: bool = False
    cursor: str | None = Field(None, max_length=8192)


def job_frames(request: Request, job_id: str, after: int = -1) -> AsyncIterator[Frame]:
    """Follow a job and yield its events above a sequence number as frames."""
    return event_frames(request.platform.tail.follow(job_id, after, owner=request.caller.account_id))


async def tree_frames(request: Request, job: Job, cursor: StreamCursor) -> AsyncIterator[Frame]:
    """Follow a job and all jobs below it, and yield their events as frames.

    Raises InvalidRequest for a cursor of another tree.
    """
    if cursor.starting_after is not None:
        message = "'starting_after' is a position in one job's events: with 'tree', resume with 'cursor'."
        raise InvalidRequest(message, param="starting_after")
    name = "Last-Event-ID" if cursor.cursor is None else "cursor"
    text = (request.headers.get("last-event-id", "").strip() if cursor.cursor is None else cursor.cursor) or None
    positions: Positions = {job.id: -1}
    announced: set[str] = set()
    if text is not None:
        positions, announced = await run_in_thread(_tree_positions, request, job, text, name)
    return TreeStream(job.id, partial(_follow_member, request, job, announced), positions).frames()


def _tree_positions(request: Request, job: Job, text: str, name: str) -> tuple[Positions, set[str]]:
    """Return the positions of a cursor, and those of its jobs that do not exist, which a turn may have announced."""
    try:
        positions = decode_cursor(text)
    except ValueError as error:
        raise InvalidRequest(f"'{name}' is not a cursor of this stream: {error}.", param=name) from None
    known = _members(request, job, positions)
    if not all(known.values()):
        raise InvalidRequest(f"'{name}' is a cursor of another stream.", param=name)
    return positions, positions.keys() - known.keys()


def _members(request: Request, job: Job, ids: Collection[str]) -> Mapping[str, bool]:
    with request.platform.database.connection() as connection:
        return members(connection, ids, job)


async def _follow_member(
    request: Request, root: Job, announced: set[str], job_id: str, after: int
) -> AsyncGenerator[list[Event], None]:
    """Follow a job of a tree. One that only the client's cursor names is followed once it is in the tree."""
    if job_id in announced:
        if not (await run_in_thread(_members, request, root, [job_id])).get(job_id):
            return
        announced.discard(job_id)
    async for events in request.platform.tail.follow(job_id, after, owner=request.caller.account_id):
        yield events


async def event_frames(
    batches: EventBatches, *, on_delivered: Callable[[], object] | None = None
) -> AsyncIterator[Frame]:
    """Encode events as server-sent events, one frame for each small batch.

    `on_delivered` is called in a background thread once the last event of the job has been written to the client.
    """
    async for events in batches:
        for encoded in frames(events):
            yield encoded
        if on_delivered is not None and events[-1].ends:
            run_in_background(on_delivered)


async def resume_position(request: Request, job_id: str, cursor: StreamCursor) -> int:
    """Return the sequence number after which to resume: `starting_after`, else `Last-Event-ID`, else -1.

    Above a rewind that the client may have missed, `Tail.follow` begins with the event that announces it. Raises
    InvalidRequest for a number that an ended journal has not reached, and Unavailable while one has to be repaired.
    """
    after = requested_position(request, cursor)
    name = "Last-Event-ID" if cursor.starting_after is None else "starting_after"
    return await run_in_thread(_check_position, request, job_id, after, name) if after >= 0 else -1


def requested_position(request: Request, cursor: StreamCursor) -> int:
    """Return the number of the last event that the client has received: what it asks to resume after, else -1."""
    return _last_event_id(request) if cursor.starting_after is None else cursor.starting_after


def _last_event_id(request: Request) -> int:
    value = request.headers.get("last-event-id", "").strip()
    if value and not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise InvalidRequest("'Last-Event-ID' should be a sequence number.", param="Last-Event-ID")
    return int(value) if value else -1


def _check_position(request: Request, job_id: str, after: int, name: str) -> int:
    """Read Redis before the row: a rewind is written to the row before Redis receives it."""
    recent = read_end(request.platform.redis, job_id)
    with request.platform.database.connection() as connection:
        job = read(connection, job_id, Access.own(request.caller))
        archived = last_archived(connection, job_id)
    last = max(archived, recent.last)
    ended = job is None or job.ended
    rewound = any(at is not None and at <= after for at in (job.rewound_at if job else None, recent.rewound_at))
    if rewound and ended:  # the client may have other events, and no event will announce the rewind any more
        return min(after, last - 1)
    if after <= last or (rewound and recent.last >= 0):
        return after
    if not ended:
        # Redis is down, or has lost the journal or, by a failover, its end: the running attempt, or the next one,
        # writes it again.
        raise Unavailable("The event stream cannot be resumed at the moment: its journal is being repaired.")
    raise InvalidRequest(f"'{name}' is {after}, but the last event of the stream is {last}.", param=name)

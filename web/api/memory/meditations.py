"""`/v1/meditations`: a user's memories are thought over on request; what that changed can be read, and taken back."""

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from typing_extensions import TypedDict

from models.jobs import jobs
from models.memory import meditation_changes, meditations
from models.memory.meditation_changes import Action, MeditationChange
from models.memory.meditations import Meditation, MeditationOutcome, MeditationStatus
from models.platform.errors import InvalidRequest, NotFound
from pipelines.memory.meditation import meditation_jobs, revert_meditation, schedule_meditations
from web.api.job_events import StreamCursor, job_frames, resume_position
from web.api.job_object import job_object
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.responses import json_response
from web.http.timestamps import to_unix
from web.http.validation import Body, Query, parse_query
from web.streams.sse import EventStream


class ListChanges(Query):
    """The query of `GET /v1/meditations/{id}/changes`: in the order in which they were made."""

    action: Action | None = None
    after: int | None = Field(None, ge=0, le=2_147_483_647)
    limit: int = Field(20, ge=1, le=100)


class StartMeditations(Body):
    """The body of `POST /admin/meditations`: some users, or all who have memories."""

    user_ids: list[Annotated[str, Field(min_length=1, max_length=100)]] | None = Field(
        None, min_length=1, max_length=1000
    )
    all: bool = False


class MeditationObject(TypedDict):
    """A meditation. `outcome` says what came of it, `report` counts it; `progress` is its job's."""

    id: str
    object: Literal["meditation"]
    status: MeditationStatus
    outcome: MeditationOutcome | None
    job_id: str
    progress: dict[str, Any] | None
    report: dict[str, Any]
    created_at: int
    applied_at: int | None
    reverted_at: int | None


class ChangeObject(TypedDict):
    """What a meditation changed of one memory: the columns, before and after. `reverted` is false where somebody had
    changed it since, and it was left to them."""

    id: str
    object: Literal["meditation.change"]
    memory_id: str
    action: Action
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    reverted: bool | None


def create(request: Request) -> Response:
    """`POST /v1/meditations`: begin one; while one is unfinished, that is the answer."""
    ids = request.new_id("med"), request.new_id("job")
    begun = meditation_jobs.enqueue_meditation(
        request.platform.database, request.caller, *ids, limits=request.admission.limits
    )
    request.platform.queue.nudge()
    return json_response(meditation_object(begun), 202)


def list_meditations(request: Request) -> Response:
    """`GET /v1/meditations`: the caller's, newest first."""
    query, who = parse_query(request.query, Listing), request.caller
    with request.platform.database.connection() as connection:
        found = meditations.page(connection, who.account_id, who.user_id, after=query.after, limit=query.fetch_limit)
    return page_response(found, query.limit, meditation_object)


def read(request: Request) -> Response:
    """`GET /v1/meditations/{id}`."""
    return json_response(meditation_object(_read(request)))


def changes(request: Request) -> Response:
    """`GET /v1/meditations/{id}/changes`: memory by memory; nobody's words, which stand among the memories."""
    query = parse_query(request.query, ListChanges)
    meditation = _read(request)
    after = -1 if query.after is None else query.after
    with request.platform.database.connection() as connection:
        found = meditation_changes.page(
            connection, meditation.id, meditation.account_id, action=query.action, after=after, limit=query.limit + 1
        )
    return page_response(found, query.limit, change_object)


async def events(request: Request) -> EventStream:
    """`GET /v1/meditations/{id}/events`: the event stream of its job."""
    query = parse_query(request.query, StreamCursor)
    job_id = await run_in_threadpool(_job_id, request)
    return EventStream(
        job_frames(request, job_id, await resume_position(request, job_id, query)), request.platform.streams
    )


def revert(request: Request) -> Response:
    """`POST /v1/meditations/{id}/revert`: as it was before, but for what somebody has changed since."""
    who = request.caller
    reverted = revert_meditation.revert(
        request.platform.database, request.path_params["meditation_id"], who.account_id, who.user_id
    )
    request.platform.queue.nudge()
    return json_response(meditation_object(reverted))


def start_many(request: Request) -> Response:
    """`POST /admin/meditations`: for these users, or for all; the answer is the job that starts them."""
    body = bodies.parse(request.body, StartMeditations)
    if body.all == (body.user_ids is not None):
        raise InvalidRequest("Say whom: 'user_ids', or 'all': true.", param="user_ids")
    job_id = request.new_id("job")
    schedule_meditations.enqueue_scheduling(
        request.platform.database, request.caller, request.origin, job_id, body.user_ids
    )
    request.platform.queue.nudge()
    with request.platform.database.connection() as connection:
        made = jobs.read(connection, job_id, request.caller.account_id)
    assert made is not None
    return json_response(job_object(made), 202)


def meditation_object(meditation: Meditation) -> MeditationObject:
    """A meditation as it is told."""
    return {
        "id": meditation.id,
        "object": "meditation",
        "status": meditation.status,
        "outcome": meditation.outcome,
        "job_id": meditation.job_id,
        "progress": meditation.progress,
        "report": meditation.report,
        "created_at": int(meditation.created_at.timestamp()),
        "applied_at": to_unix(meditation.applied_at),
        "reverted_at": to_unix(meditation.reverted_at),
    }


def change_object(change: MeditationChange) -> ChangeObject:
    """A change as it is told."""
    return {
        "id": str(change.position),
        "object": "meditation.change",
        "memory_id": change.memory_id,
        "action": change.action,
        "reason": change.reason,
        "before": change.before,
        "after": change.after,
        "reverted": change.reverted,
    }


def _read(request: Request) -> Meditation:
    meditation_id, who = request.path_params["meditation_id"], request.caller
    with request.platform.database.connection() as connection:
        found = meditations.read(connection, meditation_id, who.account_id, who.user_id)
    if found is None:
        raise NotFound(f"Meditation with id '{meditation_id}' not found.", param="meditation_id")
    return found


def _job_id(request: Request) -> str:
    """The job of the meditation. Raises NotFound, also where the job has been deleted."""
    meditation = _read(request)
    if meditation.job_state is None:
        raise NotFound("The job of this meditation is gone, and its events with it.", param="meditation_id")
    return meditation.job_id

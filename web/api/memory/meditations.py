"""`/v1/meditations`: consolidate the memories of a space, and read and revert the changes."""

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts.ownership import Access
from models.jobs import jobs
from models.memory import meditation_changes, meditations
from models.memory.meditation_changes import ChangeAction, MeditationChange
from models.memory.meditations import Meditation, MeditationOutcome, MeditationStatus
from models.memory.spaces import SpaceKey
from models.platform.errors import InvalidRequest, NotFound
from models.platform.texts import truncate
from pipelines.memory.meditation import meditation_jobs, revert_meditation, schedule_meditations
from pipelines.requests.validation import RequestBody
from web.api.job_events import StreamCursor, job_frames, resume_position
from web.api.job_object import job_object
from web.api.request import Request
from web.api.requested_space import InSpace, queried_space, requested_space
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.threads import run_in_thread
from web.http.timestamps import to_unix
from web.streams.sse import EventStream


class ListMeditations(Listing, InSpace):
    """The query of `GET /v1/meditations`."""


class ListChanges(InSpace):
    """The query of `GET /v1/meditations/{id}/changes`. `after` is the id of a change."""

    action: ChangeAction | None = None
    after: int | None = Field(None, ge=0, le=2_147_483_647)
    limit: int = Field(20, ge=1, le=100)


class StreamMeditation(StreamCursor, InSpace):
    """The query of `GET /v1/meditations/{id}/events`."""


class StartMeditations(RequestBody):
    """The body of `POST /admin/meditations`: the users in `user_ids`, or with `all` every user with memories."""

    user_ids: list[Annotated[str, Field(min_length=1, max_length=100)]] | None = Field(
        None, min_length=1, max_length=1000
    )
    all: bool = False


class MeditationObject(TypedDict):
    """A meditation. `space` names the end user whose memories it consolidates, null for the user's own; `report` counts
    its changes; `progress` is that of its job. Times are in Unix seconds."""

    id: str
    object: Literal["meditation"]
    space: str | None
    status: MeditationStatus
    outcome: MeditationOutcome | None
    job_id: str
    progress: dict[str, Any] | None
    report: dict[str, Any]
    created_at: int
    applied_at: int | None
    reverted_at: int | None


class MeditationChangeObject(TypedDict):
    """A change of one memory by a meditation: its fields before and after. `reverted` is false if a revert skipped the
    change because the memory had been changed since."""

    id: str
    object: Literal["meditation.change"]
    memory_id: str
    action: ChangeAction
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    reverted: bool | None


def create(request: Request) -> Response:
    """`POST /v1/meditations`: start a meditation over a space, or return its unfinished one."""
    key, ids = queried_space(request), (request.new_id("med"), request.new_id("job"))
    meditation = meditation_jobs.enqueue_meditation(
        request.platform.database, key, *ids, limits=request.admission.limits
    )
    request.platform.queue.nudge(request.caller.account_id)
    return json_response(meditation_object(meditation), 202)


def list_meditations(request: Request) -> Response:
    """`GET /v1/meditations`: list the meditations of a space, newest first."""
    query = parse_query(request.query, ListMeditations)
    key = requested_space(request, query.space)
    with request.platform.database.connection() as connection:
        records = meditations.page(connection, key, after=query.after, limit=query.fetch_limit)
    return page_response(records, query.limit, meditation_object)


def read(request: Request) -> Response:
    """`GET /v1/meditations/{id}`: read a meditation."""
    return json_response(meditation_object(_read(request, queried_space(request))))


def list_changes(request: Request) -> Response:
    """`GET /v1/meditations/{id}/changes`: list a meditation's changes in the order in which they were made.

    Texts are not included; read them from the memories.
    """
    query = parse_query(request.query, ListChanges)
    meditation = _read(request, requested_space(request, query.space))
    after = -1 if query.after is None else query.after
    with request.platform.database.connection() as connection:
        records = meditation_changes.page(
            connection, meditation.id, meditation.account_id, action=query.action, after=after, limit=query.limit + 1
        )
    return page_response(records, query.limit, change_object)


async def events(request: Request) -> EventStream:
    """`GET /v1/meditations/{id}/events`: stream the events of a meditation's job."""
    query = parse_query(request.query, StreamMeditation)
    job_id = await run_in_thread(_job_id, request, query.space)
    return EventStream(
        job_frames(request, job_id, await resume_position(request, job_id, query)), request.platform.streams
    )


def revert(request: Request) -> Response:
    """`POST /v1/meditations/{id}/revert`: revert a meditation, except for memories that were changed since."""
    key, meditation_id = queried_space(request), request.path_params["meditation_id"]
    meditation = revert_meditation.revert(request.platform.database, meditation_id, key)
    request.platform.queue.nudge(request.caller.account_id)
    return json_response(meditation_object(meditation))


def start_meditations(request: Request) -> Response:
    """`POST /admin/meditations`: start a job that starts meditations of some users, or of all."""
    body = bodies.parse(request.body, StartMeditations)
    if body.all == (body.user_ids is not None):
        raise InvalidRequest(
            "Exactly one of 'user_ids' and 'all' is required. Provide a list of user ids, or 'all': true.",
            param="user_ids",
        )
    job_id = request.new_id("job")
    schedule_meditations.enqueue_scheduling(
        request.platform.database, request.caller, request.origin, job_id, body.user_ids
    )
    request.platform.queue.nudge(request.caller.account_id)
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, Access.own(request.caller))
    assert job is not None
    return json_response(job_object(job), 202)


def meditation_object(meditation: Meditation) -> MeditationObject:
    """Convert a meditation to its API object."""
    return {
        "id": meditation.id,
        "object": "meditation",
        "space": meditation.space or None,
        "status": meditation.status,
        "outcome": meditation.outcome,
        "job_id": meditation.job_id,
        "progress": meditation.progress,
        "report": meditation.report,
        "created_at": int(meditation.created_at.timestamp()),
        "applied_at": to_unix(meditation.applied_at),
        "reverted_at": to_unix(meditation.reverted_at),
    }


def change_object(change: MeditationChange) -> MeditationChangeObject:
    """Convert a change to its API object."""
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


def _read(request: Request, key: SpaceKey) -> Meditation:
    meditation_id = request.path_params["meditation_id"]
    with request.platform.database.connection() as connection:
        meditation = meditations.read(connection, meditation_id, key)
    if meditation is None:
        raise NotFound(f"Meditation with id '{truncate(meditation_id)}' not found.", param="meditation_id")
    return meditation


def _job_id(request: Request, space: str | None) -> str:
    """Return the id of the meditation's job. Raises NotFound, also if the job has been deleted."""
    meditation = _read(request, requested_space(request, space))
    if meditation.job_state is None:
        raise NotFound("The events of this meditation were deleted with its job.", param="meditation_id")
    return meditation.job_id

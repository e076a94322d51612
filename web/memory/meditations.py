"""`/v1/meditations`: a user's memories are thought over on request; what that changed can be read, and taken back."""

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from typing_extensions import TypedDict

from models.jobs import jobs
from models.memory import meditation_changes, meditations
from models.memory.meditation_changes import Action, Change
from models.memory.meditations import Meditation, Outcome, Status
from models.platform.errors import InvalidRequest, NotFound
from pipelines.memory.meditation import reverting, rounds, starting
from web.http import bodies
from web.http.answers import json_answer
from web.http.moments import seconds
from web.http.paging import Listing, paged
from web.http.validation import Body, Query, parse_query
from web.jobs import job_object
from web.routing import Call
from web.streams.following import Cursor, follow_frames, position
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
    status: Status
    outcome: Outcome | None
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


def create(call: Call) -> Response:
    """`POST /v1/meditations`: begin one; while one is unfinished, that is the answer."""
    ids = call.new_id("med"), call.new_id("job")
    begun = starting.start(call.platform.database, call.caller, *ids, limits=call.admission.limits)
    call.platform.queue.nudge()
    return json_answer(meditation_object(begun), 202)


def list_meditations(call: Call) -> Response:
    """`GET /v1/meditations`: the caller's, newest first."""
    query, who = parse_query(call.query, Listing), call.caller
    with call.platform.database.connection() as connection:
        found = meditations.page(connection, who.account_id, who.user_id, after=query.after, limit=query.wanted)
    return paged(found, query.limit, meditation_object)


def read(call: Call) -> Response:
    """`GET /v1/meditations/{id}`."""
    return json_answer(meditation_object(_read(call)))


def changes(call: Call) -> Response:
    """`GET /v1/meditations/{id}/changes`: memory by memory; nobody's words, which stand among the memories."""
    query = parse_query(call.query, ListChanges)
    meditation = _read(call)
    after = -1 if query.after is None else query.after
    with call.platform.database.connection() as connection:
        found = meditation_changes.page(
            connection, meditation.id, meditation.account_id, action=query.action, after=after, limit=query.limit + 1
        )
    return paged(found, query.limit, change_object)


async def events(call: Call) -> EventStream:
    """`GET /v1/meditations/{id}/events`: the event stream of its job."""
    query = parse_query(call.query, Cursor)
    job_id = await run_in_threadpool(_job_id, call)
    return EventStream(follow_frames(call, job_id, await position(call, job_id, query)), call.platform.streams)


def revert(call: Call) -> Response:
    """`POST /v1/meditations/{id}/revert`: as it was before, but for what somebody has changed since."""
    who = call.caller
    reverted = reverting.revert(call.platform.database, call.path["meditation_id"], who.account_id, who.user_id)
    call.platform.queue.nudge()
    return json_answer(meditation_object(reverted))


def start_many(call: Call) -> Response:
    """`POST /admin/meditations`: for these users, or for all; the answer is the job that starts them."""
    body = bodies.parse(call.body, StartMeditations)
    if body.all == (body.user_ids is not None):
        raise InvalidRequest("Say whom: 'user_ids', or 'all': true.", param="user_ids")
    job_id = call.new_id("job")
    rounds.start(call.platform.database, call.caller, call.trail, job_id, body.user_ids)
    call.platform.queue.nudge()
    with call.platform.database.connection() as connection:
        made = jobs.read(connection, job_id, call.caller.account_id)
    assert made is not None
    return json_answer(job_object(made), 202)


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
        "applied_at": seconds(meditation.applied_at),
        "reverted_at": seconds(meditation.reverted_at),
    }


def change_object(change: Change) -> ChangeObject:
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


def _read(call: Call) -> Meditation:
    meditation_id, who = call.path["meditation_id"], call.caller
    with call.platform.database.connection() as connection:
        found = meditations.read(connection, meditation_id, who.account_id, who.user_id)
    if found is None:
        raise NotFound(f"Meditation with id '{meditation_id}' not found.", param="meditation_id")
    return found


def _job_id(call: Call) -> str:
    """The job of the meditation. Raises NotFound, also where the job has been deleted."""
    meditation = _read(call)
    if meditation.job_state is None:
        raise NotFound("The job of this meditation is gone, and its events with it.", param="meditation_id")
    return meditation.job_id

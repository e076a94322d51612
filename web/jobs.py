"""`/v1/jobs`: work of every kind, read, listed, followed and cancelled in one way."""

from typing import Any, Literal

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from typing_extensions import TypedDict

from models.jobs import jobs
from models.jobs.jobs import Job, State
from models.platform.errors import NotFound
from web.entrance.rights import Rights
from web.http.answers import json_answer
from web.http.departures import cancel_job
from web.http.paging import Listing, paged
from web.http.validation import parse_query
from web.routing import Call
from web.streams.following import Cursor, follow_frames, position
from web.streams.sse import EventStream

#: Kinds whose result has somebody's words: it is for the one who waits for it, and for nobody else of the account.
UNTOLD = frozenset({"memory.search", "memory.fact", "memory.insight"})

#: Kinds that only an admin begins, or that somebody else relies on: only admins, and keys of theirs, stop them.
FOR_ADMINS = frozenset({"account.export", "email.send", "memory.forget"})


class JobObject(TypedDict):
    """A job as its account sees it."""

    id: str
    object: Literal["job"]
    kind: str
    state: State
    cancel_requested: bool
    attempt: int
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    parent_id: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class List(Listing):
    """The query of `GET /v1/jobs`."""

    after: str | None = None
    kind: str | None = None
    state: State | None = None


def list_jobs(call: Call) -> Response:
    """`GET /v1/jobs`: the account's jobs, newest first."""
    query = parse_query(call.query, List)
    with call.platform.database.connection() as connection:
        found = jobs.list_jobs(
            connection,
            call.caller.account_id,
            kind=query.kind,
            state=query.state,
            after=query.after,
            limit=query.wanted,
        )
    return paged(found, query.limit, job_object)


def read(call: Call) -> Response:
    """`GET /v1/jobs/{id}`."""
    return json_answer(job_object(_read(call)))


async def events(call: Call) -> EventStream:
    """`GET /v1/jobs/{id}/events`: its event stream, from any point on, live or long ended."""
    query = parse_query(call.query, Cursor)
    job = await run_in_threadpool(_read, call)
    after = await position(call, job.id, query)
    return EventStream(follow_frames(call, job.id, after), call.platform.streams)


def cancel(call: Call) -> Response:
    """`POST /v1/jobs/{id}/cancel`: stop it and all that it has started; one that has ended stays as it is.

    Only admins stop exports, letters, and the forgetting of memories.
    """
    job = _read(call)
    if job.kind in FOR_ADMINS:
        Rights.ADMIN.check(call.caller)
    cancel_job(call, job.id)
    return json_answer(job_object(_read(call)))


def job_object(job: Job) -> JobObject:
    """A job as its account sees it: nothing of workers, leases and tracebacks."""
    return {
        "id": job.id,
        "object": "job",
        "kind": job.kind,
        "state": job.state,
        "cancel_requested": job.cancel_requested_at is not None,
        "attempt": job.attempt,
        "progress": job.progress,
        "result": None if job.kind in UNTOLD else job.result,
        "error": job.error,
        "parent_id": job.parent_id,
        "created_at": int(job.created_at.timestamp()),
        "started_at": int(job.started_at.timestamp()) if job.started_at else None,
        "finished_at": int(job.finished_at.timestamp()) if job.finished_at else None,
    }


def _read(call: Call) -> Job:
    job_id = call.path["job_id"]
    with call.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, call.caller.account_id)
    if job is None:
        raise NotFound(f"Job with id '{job_id}' not found.", param="job_id")
    return job

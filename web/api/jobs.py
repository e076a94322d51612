"""`/v1/jobs`: read, list, follow and cancel jobs of every kind."""

from pydantic import Field
from starlette.responses import Response

from models.accounts.ownership import Access
from models.jobs import jobs, trees
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import Job, JobState
from models.jobs.trees import TreeJob
from models.platform.errors import Conflict, NotFound
from web.access.rights import Rights
from web.api.job_events import StreamCursor, job_frames, resume_position, tree_frames
from web.api.job_object import JobObject, TreeJobObject, job_object
from web.api.job_results import cancel_job
from web.api.request import Request
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.threads import run_in_thread
from web.streams.sse import EventStream
from web.streams.waiting import Wait, as_event, as_tree_event

#: Kinds that only an admin starts, or that other users rely on: only admins and their API keys cancel them.
CANCELLED_BY_ADMINS = frozenset({"account.export", "email.send", "memory.forget"})


class ListJobs(Listing):
    """The query of `GET /v1/jobs`."""

    after: str | None = None
    kind: str | None = None
    state: JobState | None = None


def list_jobs(request: Request) -> Response:
    """`GET /v1/jobs`: list the caller's jobs, newest first; for admins all of the account's."""
    query = parse_query(request.query, ListJobs)
    with request.platform.database.connection() as connection:
        records = jobs.list_jobs(
            connection,
            Access.managed(request.caller),
            kind=query.kind,
            state=query.state,
            after=query.after,
            limit=query.fetch_limit,
        )
    return page_response(records, query.limit, lambda job: _job_object(request, job))


def read(request: Request) -> Response:
    """`GET /v1/jobs/{id}`: read a job. Admins read those of other members without the result."""
    return json_response(_job_object(request, _read(request, Access.managed(request.caller))))


class ListTree(Listing):
    """The query of `GET /v1/jobs/{id}/tree`."""

    limit: int = Field(100, ge=1, le=100)


def tree(request: Request) -> Response:
    """`GET /v1/jobs/{id}/tree`: list a job and all jobs below it, oldest first, with the agents of turns."""
    query = parse_query(request.query, ListTree)
    access = Access.managed(request.caller)
    root = _read(request, access)
    with request.platform.database.connection() as connection:
        records = trees.list_tree(connection, root.id, access, after=query.after, limit=query.fetch_limit)
    return page_response(records, query.limit, lambda each: _tree_job_object(request, each))


async def events(request: Request) -> EventStream:
    """`GET /v1/jobs/{id}/events`: stream the events of one's own job from any point on, also after it has ended."""
    query = parse_query(request.query, StreamCursor)
    job = await run_in_thread(_read, request, Access.own(request.caller))
    if query.tree:
        wait = Wait(job.id, as_tree_event)
        return EventStream(await tree_frames(request, job, query), request.platform.streams, wait=wait)
    after = await resume_position(request, job.id, query)
    return EventStream(job_frames(request, job.id, after), request.platform.streams, wait=Wait(job.id, as_event))


def cancel(request: Request) -> Response:
    """`POST /v1/jobs/{id}/cancel`: cancel a job and all its descendants; a job that has ended stays as it is.

    Admins can cancel the jobs of all members, and only they can cancel exports, e-mails, and deletions of memories.
    """
    job = _read(request, Access.managed(request.caller))
    if not CATALOGUE[job.kind].cancellable:
        raise Conflict(
            "Jobs of this kind cannot be cancelled. Cancel a batch with POST /v1/batches/{id}/cancel.",
            code="not_cancellable",
        )
    if job.kind in CANCELLED_BY_ADMINS:
        Rights.ADMIN.check(request.caller)
    cancel_job(request, job.id)
    return json_response(_job_object(request, _read(request, Access.managed(request.caller))))


def _job_object(request: Request, job: Job) -> JobObject:
    """Convert a job to its API object, with the result for its owner only."""
    visible = job_object(job)
    return visible if Access.own(request.caller).includes(job.owner_id) else {**visible, "result": None}


def _tree_job_object(request: Request, each: TreeJob) -> TreeJobObject:
    return {
        **_job_object(request, each.job),
        "depth": each.job.depth,
        "response_id": each.response_id,
        "agent": each.agent,
        "usage": dict(each.usage) if each.usage else None,
    }


def _read(request: Request, access: Access) -> Job:
    job_id = request.path_params["job_id"]
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, access)
    if job is None:
        raise NotFound(f"Job with id '{job_id}' not found.", param="job_id")
    return job

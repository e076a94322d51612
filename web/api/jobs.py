"""`/v1/jobs`: read, list, follow and cancel jobs of every kind."""

from starlette.responses import Response

from models.jobs import jobs
from models.jobs.jobs import Job, JobState
from models.platform.errors import NotFound
from web.access.rights import Rights
from web.api.job_events import StreamCursor, job_frames, resume_position
from web.api.job_object import job_object
from web.api.job_results import cancel_job
from web.api.request import Request
from web.http.paging import Listing, page_response
from web.http.responses import json_response
from web.http.threads import run_in_thread
from web.http.validation import parse_query
from web.streams.sse import EventStream

#: Kinds that only an admin starts, or that other users rely on: only admins and their API keys cancel them.
CANCELLED_BY_ADMINS = frozenset({"account.export", "email.send", "memory.forget"})


class ListJobs(Listing):
    """The query of `GET /v1/jobs`."""

    after: str | None = None
    kind: str | None = None
    state: JobState | None = None


def list_jobs(request: Request) -> Response:
    """`GET /v1/jobs`: list the account's jobs, newest first."""
    query = parse_query(request.query, ListJobs)
    with request.platform.database.connection() as connection:
        records = jobs.list_jobs(
            connection,
            request.caller.account_id,
            kind=query.kind,
            state=query.state,
            after=query.after,
            limit=query.fetch_limit,
        )
    return page_response(records, query.limit, job_object)


def read(request: Request) -> Response:
    """`GET /v1/jobs/{id}`: read a job."""
    return json_response(job_object(_read(request)))


async def events(request: Request) -> EventStream:
    """`GET /v1/jobs/{id}/events`: stream a job's events from any point on, also after it has ended."""
    query = parse_query(request.query, StreamCursor)
    job = await run_in_thread(_read, request)
    after = await resume_position(request, job.id, query)
    return EventStream(job_frames(request, job.id, after), request.platform.streams)


def cancel(request: Request) -> Response:
    """`POST /v1/jobs/{id}/cancel`: cancel a job and all its descendants; a job that has ended stays as it is.

    Only admins can cancel exports, e-mails, and deletions of memories.
    """
    job = _read(request)
    if job.kind in CANCELLED_BY_ADMINS:
        Rights.ADMIN.check(request.caller)
    cancel_job(request, job.id)
    return json_response(job_object(_read(request)))


def _read(request: Request) -> Job:
    job_id = request.path_params["job_id"]
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, request.caller.account_id)
    if job is None:
        raise NotFound(f"Job with id '{job_id}' not found.", param="job_id")
    return job

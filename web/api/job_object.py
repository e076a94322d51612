"""The job object of the API."""

from typing import Any, Literal

from typing_extensions import TypedDict

from models.jobs.jobs import Job, JobState
from models.jobs.route_costs import ROUTE
from pipelines.chat.response_objects import route_object
from pipelines.chat.response_types import RouteObject

#: Kinds whose result quotes a user's texts: only the request that waits for it may read it, not the whole account.
PRIVATE_RESULTS = frozenset({"memory.search", "memory.fact", "memory.insight"})


class JobObject(TypedDict):
    """A job as its account sees it. `route` is the way of a turn between a local model and an endpoint."""

    id: str
    object: Literal["job"]
    kind: str
    state: JobState
    cancel_requested: bool
    attempt: int
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    parent_id: str | None
    route: RouteObject | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class TreeJobObject(JobObject):
    """A job of a tree: how deep it is below the root, and of a turn its response, its agent and its tokens."""

    depth: int
    response_id: str | None
    agent: str | None
    usage: dict[str, Any] | None


def job_object(job: Job) -> JobObject:
    """Convert a job to its API object, without workers, leases and tracebacks."""
    return {
        "id": job.id,
        "object": "job",
        "kind": job.kind,
        "state": job.state,
        "cancel_requested": job.cancel_requested_at is not None,
        "attempt": job.attempt,
        "progress": _visible_progress(job),
        "result": None if job.kind in PRIVATE_RESULTS else job.result,
        "error": job.error,
        "parent_id": job.parent_id,
        "route": route_object(job.arguments[ROUTE]) if job.arguments.get(ROUTE) else None,
        "created_at": int(job.created_at.timestamp()),
        "started_at": int(job.started_at.timestamp()) if job.started_at else None,
        "finished_at": int(job.finished_at.timestamp()) if job.finished_at else None,
    }


def _visible_progress(job: Job) -> dict[str, Any] | None:
    """Return the job's progress without what only its next attempt needs."""
    return {name: value for name, value in job.progress.items() if name != "resume"} if job.progress else None

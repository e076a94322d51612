"""`/admin/*`: accounts and dead jobs of the installation, for operators only."""

from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import admin
from models.accounts.admin import AccountState
from models.jobs import dead_jobs
from models.jobs.jobs import Job
from models.journal import journal
from pipelines.accounts import operator_actions
from pipelines.requests.validation import RequestBody
from web.api.accounts.account import AccountLimits, limits_object
from web.api.accounts.limits import LimitOverrides
from web.api.job_object import JobObject, job_object
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.timestamps import to_unix


class AdminUpdateAccount(RequestBody):
    """The body of `PATCH /admin/accounts/{id}`. Omitted fields stay unchanged."""

    plan_id: str | None = Field(None, max_length=64)
    limits: LimitOverrides | None = None


class ListAccounts(Listing):
    """The query of `GET /admin/accounts`. `search` is an account's id, or part of its name or of a member's e-mail."""

    search: str | None = Field(None, min_length=1, max_length=320)


class ListDeadJobs(Listing):
    """The query of `GET /admin/jobs`."""

    state: Literal["dead"] = "dead"


class AdminAccount(TypedDict):
    """An account as operators see it. `limits` are the effective limits, `overrides` those that operators set."""

    id: str
    object: Literal["account"]
    name: str
    plan_id: str
    limits: AccountLimits
    overrides: dict[str, int]
    members: int
    created_at: int
    erased_at: int | None


class AdminJob(JobObject):
    """A job as operators see it, with its account and the traceback of its last failure."""

    account_id: str
    traceback: str | None


def list_accounts(request: Request) -> Response:
    """`GET /admin/accounts`: list or search accounts, newest first."""
    query = parse_query(request.query, ListAccounts)
    with request.platform.database.connection() as connection:
        records = admin.list_accounts(connection, search=query.search, after=query.after, limit=query.fetch_limit)
    return page_response(records, query.limit, account_object)


def read_account(request: Request) -> Response:
    """`GET /admin/accounts/{id}`: read an account."""
    with request.platform.database.connection() as connection:
        return json_response(
            account_object(operator_actions.find_account(connection, request.path_params["account_id"]))
        )


def update_account(request: Request) -> Response:
    """`PATCH /admin/accounts/{id}`: change an account's plan and limits, effective from its next request."""
    body = bodies.parse(request.body, AdminUpdateAccount)
    account = operator_actions.change_account(
        request.platform.database,
        request.caller,
        request.path_params["account_id"],
        request.origin,
        plan_id=body.plan_id,
        limits=body.limits.model_dump(exclude_unset=True) if body.limits else {},
    )
    return json_response(account_object(account))


def list_jobs(request: Request) -> Response:
    """`GET /admin/jobs`: list the dead jobs of all accounts, latest first."""
    query = parse_query(request.query, ListDeadJobs)
    with request.platform.database.connection() as connection:
        records = dead_jobs.list_dead_jobs(connection, query.fetch_limit, after=query.after)
    return page_response(records, query.limit, admin_job)


def replay_job(request: Request) -> Response:
    """`POST /admin/jobs/{id}/replay`: queue a dead job again, with all its attempts."""
    platform = request.platform
    job = operator_actions.replay(platform.database, request.caller, request.path_params["job_id"], request.origin)
    # The journal in Redis ends with the old failure; the archive has the events to continue from.
    journal.delete(platform.redis, job.id)
    platform.queue.nudge()
    return json_response(admin_job(job))


def discard_job(request: Request) -> Response:
    """`POST /admin/jobs/{id}/discard`: remove a dead job from the list; its state becomes `failed`."""
    job = operator_actions.discard(
        request.platform.database, request.caller, request.path_params["job_id"], request.origin
    )
    return json_response(admin_job(job))


def account_object(account: AccountState) -> AdminAccount:
    """Convert an account to its API object for operators."""
    return {
        "id": account.id,
        "object": "account",
        "name": account.name,
        "plan_id": account.plan_id,
        "limits": limits_object(account.limits),
        "overrides": dict(account.overrides),
        "members": account.members,
        "created_at": int(account.created_at.timestamp()),
        "erased_at": to_unix(account.erased_at),
    }


def admin_job(job: Job) -> AdminJob:
    """Convert a job to its API object for operators."""
    return {**job_object(job), "account_id": job.account_id, "traceback": job.traceback}

"""`/admin/*`: what operators see and do across accounts. Elsewhere they see their own account, like anybody."""

import re
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import admin
from models.accounts.admin import AccountState, Plan
from models.jobs import operations
from models.jobs.jobs import Job
from models.journal import journal
from models.platform.errors import InvalidRequest
from pipelines.accounts import operator_actions
from web.api.accounts.account import AccountLimits, limits_object
from web.api.accounts.names import Name
from web.api.job_object import JobObject, job_object
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.responses import json_response, page_object
from web.http.timestamps import to_unix
from web.http.validation import Body, parse_query

#: What a minute may bring: at least one, or nothing would ever pass.
PerMinuteLimit = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
CountLimit = Annotated[int, Field(ge=0, le=1_000_000_000_000)]

#: What a plan may be called.
PLAN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class LimitOverrides(Body):
    """Limits of a plan, where null is no limit; or of an account above its plan's, where null takes one away."""

    requests_per_minute: PerMinuteLimit | None = None
    tokens_per_minute: PerMinuteLimit | None = None
    streams: CountLimit | None = None
    unfinished_jobs: CountLimit | None = None
    tokens_per_month: CountLimit | None = None


class AdminUpdateAccount(Body):
    """The body of `PATCH /admin/accounts/{id}`; what is left out stays."""

    plan_id: str | None = Field(None, max_length=64)
    limits: LimitOverrides | None = None


class PutPlan(Body):
    """The body of `PUT /admin/plans/{id}`: a limit that is left out is none."""

    name: Name
    limits: LimitOverrides


class ListAccounts(Listing):
    """The query of `GET /admin/accounts`: `search` is an id, or a part of a name or of a member's address."""

    search: str | None = Field(None, min_length=1, max_length=320)


class ListDeadJobs(Listing):
    """The query of `GET /admin/jobs`."""

    state: Literal["dead"] = "dead"


class AdminAccount(TypedDict):
    """An account as operators see it. `limits` are those that hold, `overrides` those that operators have set."""

    id: str
    object: Literal["account"]
    name: str
    plan_id: str
    limits: AccountLimits
    overrides: dict[str, int]
    members: int
    created_at: int
    erased_at: int | None


class PlanObject(TypedDict):
    """A plan."""

    id: str
    object: Literal["plan"]
    name: str
    limits: AccountLimits
    created_at: int


class AdminJob(JobObject):
    """A job as operators see it: whose it is, and how it died."""

    account_id: str
    traceback: str | None


def list_accounts(request: Request) -> Response:
    """`GET /admin/accounts`: all accounts, newest first."""
    query = parse_query(request.query, ListAccounts)
    with request.platform.database.connection() as connection:
        found = admin.list_accounts(connection, search=query.search, after=query.after, limit=query.fetch_limit)
    return page_response(found, query.limit, account_object)


def read_account(request: Request) -> Response:
    """`GET /admin/accounts/{id}`."""
    with request.platform.database.connection() as connection:
        return json_response(
            account_object(operator_actions.find_account(connection, request.path_params["account_id"]))
        )


def change_account(request: Request) -> Response:
    """`PATCH /admin/accounts/{id}`: another plan, other limits, from the account's next request on."""
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


def list_plans(request: Request) -> Response:
    """`GET /admin/plans`: all of them, which are few."""
    with request.platform.database.connection() as connection:
        return json_response(page_object([plan_object(plan) for plan in admin.list_plans(connection)]))


def put_plan(request: Request) -> Response:
    """`PUT /admin/plans/{id}`: make a plan, or replace it for all accounts that are on it."""
    plan_id = request.path_params["plan_id"]
    if not PLAN_ID.fullmatch(plan_id):
        raise InvalidRequest("A plan's id is made of a-z, 0-9, _ and -, at most 64.", param="plan_id")
    body = bodies.parse(request.body, PutPlan)
    limits = body.limits.model_dump()
    plan = operator_actions.put_plan(
        request.platform.database, request.caller, plan_id, request.origin, name=body.name, limits=limits
    )
    return json_response(plan_object(plan))


def list_jobs(request: Request) -> Response:
    """`GET /admin/jobs`: the dead of all accounts, the latest first."""
    query = parse_query(request.query, ListDeadJobs)
    with request.platform.database.connection() as connection:
        found = operations.dead_jobs(connection, query.fetch_limit, after=query.after)
    return page_response(found, query.limit, admin_job)


def replay_job(request: Request) -> Response:
    """`POST /admin/jobs/{id}/replay`: a new life, with all attempts."""
    platform = request.platform
    job = operator_actions.replay(platform.database, request.caller, request.path_params["job_id"], request.origin)
    journal.delete(platform.redis, job.id)  # what Redis remembers ends with the old ending; the archive knows better
    platform.queue.nudge()
    return json_response(admin_job(job))


def discard_job(request: Request) -> Response:
    """`POST /admin/jobs/{id}/discard`: off the list; for its owner it stays failed."""
    job = operator_actions.discard(
        request.platform.database, request.caller, request.path_params["job_id"], request.origin
    )
    return json_response(admin_job(job))


def account_object(account: AccountState) -> AdminAccount:
    """An account as it is told."""
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


def plan_object(plan: Plan) -> PlanObject:
    """A plan as it is told."""
    return {
        "id": plan.id,
        "object": "plan",
        "name": plan.name,
        "limits": limits_object(plan.limits),
        "created_at": int(plan.created_at.timestamp()),
    }


def admin_job(job: Job) -> AdminJob:
    """A job as it is told to operators."""
    return {**job_object(job), "account_id": job.account_id, "traceback": job.traceback}

"""Operators' actions on any account. Each is recorded in the audit log of the account that it concerns."""

from collections.abc import Mapping
from typing import Any

from models.accounts import admin, audit
from models.accounts.accounts import Caller
from models.accounts.admin import AccountState
from models.accounts.audit import RequestOrigin
from models.billing import plan_versions
from models.billing.plan_versions import PlanTerms, PlanVersion
from models.jobs import dead_jobs
from models.jobs.jobs import Job
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, InvalidRequest, NotFound


def change_account(
    database: Database,
    caller: Caller,
    account_id: str,
    origin: RequestOrigin,
    *,
    plan_id: str | None,
    limits: Mapping[str, int | None],
) -> AccountState:
    """Change an account's plan and its overrides of limits; None removes one. Raises NotFound and InvalidRequest."""
    overrides = {name: value for name, value in limits.items() if value is not None}
    removed = [name for name, value in limits.items() if value is None]
    with database.transaction() as connection:
        find_account(connection, account_id)
        if plan_id is not None and not admin.has_plan(connection, plan_id):
            raise InvalidRequest(f"Plan with id '{plan_id}' not found.", param="plan_id", code="plan_not_found")
        admin.change_account(connection, account_id, plan_id=plan_id, overrides=overrides, removed=removed)
        details = {"plan_id": plan_id, "limits": dict(limits)}
        _record(connection, "account.limits_changed", caller, origin, account_id, account_id, details)
        return find_account(connection, account_id)


def put_plan(
    database: Database,
    caller: Caller,
    plan_id: str,
    origin: RequestOrigin,
    terms: PlanTerms,
) -> PlanVersion:
    """Create a plan, or a new version of it. Its accounts without a subscription have the new limits at once."""
    with database.transaction() as connection:
        version = plan_versions.put(connection, plan_id, terms)
        details = {"version": version.version, "limits": dict(terms.limits)}
        _record(connection, "plan.changed", caller, origin, caller.account_id, plan_id, details)
    return version


def replay(database: Database, caller: Caller, job_id: str, origin: RequestOrigin) -> Job:
    """Requeue a dead job. Then delete its journal in Redis and announce it to the queue.

    Raises NotFound, and Conflict if the job is not dead, or its parent has continued without it.
    """
    with database.transaction() as connection:
        job = find_job(connection, job_id)
        if not dead_jobs.replay(connection, [job_id]):
            raise Conflict(
                "Only a dead job can be replayed, and only if its parent job has not continued without it.",
                code="not_dead",
            )
        _record(connection, "job.replayed", caller, origin, job.account_id, job_id)
        return find_job(connection, job_id)


def discard(database: Database, caller: Caller, job_id: str, origin: RequestOrigin) -> Job:
    """Remove a job from the list of dead jobs; for its owner it stays failed. Raises NotFound and Conflict."""
    with database.transaction() as connection:
        job = find_job(connection, job_id)
        if not dead_jobs.discard(connection, [job_id]):
            raise Conflict("Only a dead job can be discarded.", code="not_dead")
        _record(connection, "job.discarded", caller, origin, job.account_id, job_id)
        return find_job(connection, job_id)


def find_account(connection: Connection, account_id: str) -> AccountState:
    """Return any account. Raises NotFound."""
    account = admin.read_account(connection, account_id)
    if account is None:
        raise NotFound(f"Account with id '{account_id}' not found.", param="account_id")
    return account


def find_job(connection: Connection, job_id: str) -> Job:
    """Return a job of any account. Raises NotFound."""
    job = dead_jobs.read_any(connection, job_id)
    if job is None:
        raise NotFound(f"Job with id '{job_id}' not found.", param="job_id")
    return job


def _record(
    connection: Connection,
    action: str,
    caller: Caller,
    origin: RequestOrigin,
    account_id: str,
    target: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    audit.record(
        connection, action, origin, account_id=account_id, user_id=caller.user_id, target=target, details=details
    )

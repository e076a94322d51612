"""What operators do across accounts. Each deed stands in the audit log of the account that it concerns."""

from collections.abc import Mapping
from typing import Any

from models.accounts import admin, audit
from models.accounts.accounts import Caller
from models.accounts.admin import AccountState, Plan
from models.accounts.audit import RequestOrigin
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
    """Another plan, and overrides of its limits; None takes one away. Raises NotFound, and InvalidRequest `plan_id`."""
    overrides = {name: value for name, value in limits.items() if value is not None}
    removed = [name for name, value in limits.items() if value is None]
    with database.transaction() as connection:
        find_account(connection, account_id)
        if plan_id is not None and not admin.has_plan(connection, plan_id):
            raise InvalidRequest(f"There is no plan '{plan_id}'.", param="plan_id", code="plan_not_found")
        admin.change_account(connection, account_id, plan_id=plan_id, overrides=overrides, removed=removed)
        details = {"plan_id": plan_id, "limits": dict(limits)}
        _record(connection, "account.limits_changed", caller, origin, account_id, account_id, details)
        return find_account(connection, account_id)


def put_plan(
    database: Database,
    caller: Caller,
    plan_id: str,
    origin: RequestOrigin,
    *,
    name: str,
    limits: Mapping[str, int | None],
) -> Plan:
    """Make a plan or replace it, from the next request of each account that is on it."""
    with database.transaction() as connection:
        plan = admin.put_plan(connection, plan_id, name, limits)
        _record(connection, "plan.changed", caller, origin, caller.account_id, plan_id, {"limits": dict(limits)})
    return plan


def replay(database: Database, caller: Caller, job_id: str, origin: RequestOrigin) -> Job:
    """Give a dead job a new life. Its journal in Redis must then be forgotten, and the queue be told.

    Raises NotFound, and Conflict for what is not dead, or is the child of a job that has gone on without it.
    """
    with database.transaction() as connection:
        found = find_job(connection, job_id)
        if not dead_jobs.replay(connection, [job_id]):
            raise Conflict("This job is not dead, or its parent has gone on without it.", code="not_dead")
        _record(connection, "job.replayed", caller, origin, found.account_id, job_id)
        return find_job(connection, job_id)


def discard(database: Database, caller: Caller, job_id: str, origin: RequestOrigin) -> Job:
    """Take a dead job off the list; for its owner it stays failed. Raises NotFound and Conflict."""
    with database.transaction() as connection:
        found = find_job(connection, job_id)
        if not dead_jobs.discard(connection, [job_id]):
            raise Conflict("This job is not dead.", code="not_dead")
        _record(connection, "job.discarded", caller, origin, found.account_id, job_id)
        return find_job(connection, job_id)


def find_account(connection: Connection, account_id: str) -> AccountState:
    """Any account. Raises NotFound."""
    found = admin.read_account(connection, account_id)
    if found is None:
        raise NotFound(f"Account with id '{account_id}' not found.", param="account_id")
    return found


def find_job(connection: Connection, job_id: str) -> Job:
    """A job of any account. Raises NotFound."""
    found = dead_jobs.read_any(connection, job_id)
    if found is None:
        raise NotFound(f"Job with id '{job_id}' not found.", param="job_id")
    return found


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

"""Insert a report with the job that builds it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from models.accounts import files
from models.accounts.accounts import Caller
from models.accounts.plans import Limits
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.platform.database import Connection
from models.platform.errors import NotAllowed
from models.reports import reports
from models.reports.reports import NewReport
from pipelines.reporting import report_request
from pipelines.reporting.requested_report import (
    RequestedReport,
    check_operators,
    check_recipients,
    resolve,
    resolve_for_operator,
)

KIND = "report.build"


def enqueue_report(
    connection: Connection,
    requested: RequestedReport,
    caller: Caller,
    limits: Limits,
    now: datetime,
    *,
    report_id: str,
    job_id: str,
    asked: Mapping[str, Any],
    schedule_id: str | None = None,
) -> None:
    """Insert a report of a caller's account with its job, unless a repeated request has. Announce the job afterwards.

    Raises InvalidRequest, NotAllowed, and LimitExceeded where the account's limits leave no room.
    """
    query, scope = resolve(requested, caller, now)
    check_recipients(connection, caller, scope, requested.deliver_to)
    check_unfinished_jobs(connection, caller.account_id, limits)
    files.check_stored_bytes(connection, caller.account_id, limits)
    new = NewReport(
        id=report_id,
        account_id=caller.account_id,
        user_id=caller.user_id,
        scope=scope,
        job_id=job_id,
        asked=asked,
        query=report_request.to_json(query),
        format=requested.format,
        deliver_to=requested.deliver_to,
        schedule_id=schedule_id,
    )
    _insert(connection, new, owner_id=caller.user_id if scope == "user" else None)


def enqueue_operator_report(
    connection: Connection,
    requested: RequestedReport,
    operator: Caller,
    now: datetime,
    *,
    report_id: str,
    job_id: str,
    asked: Mapping[str, Any],
    schedule_id: str | None = None,
) -> None:
    """Insert a report across accounts with its job, which belong to the platform.

    Raises InvalidRequest, and NotAllowed unless the caller is an operator.
    """
    if not operator.operator:
        raise NotAllowed("Only operators of the installation have reports across accounts.", code="operator_required")
    check_operators(connection, requested.deliver_to)
    new = NewReport(
        id=report_id,
        account_id=PLATFORM_ACCOUNT,
        user_id=operator.user_id,
        scope="account",
        job_id=job_id,
        asked=asked,
        query=report_request.to_json(resolve_for_operator(requested, now)),
        format=requested.format,
        deliver_to=requested.deliver_to,
        schedule_id=schedule_id,
    )
    _insert(connection, new, owner_id=None)


def _insert(connection: Connection, new: NewReport, *, owner_id: str | None) -> None:
    if reports.insert(connection, new):
        arguments = {"report_id": new.id}
        enqueue(connection, NewJob(KIND, new.account_id, arguments, id=new.job_id, owner_id=owner_id))

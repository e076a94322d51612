"""Build the file of a report: read the table in one snapshot, write it in its format, store it.

An attempt that finds the file of an earlier one completes the report with its numbers (`stored_result`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.accounts.files import Audience
from models.delivery import events
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob
from models.platform.database import Connection
from models.platform.errors import InvalidRequest, PermanentFailure, RequestError
from models.platform.object_store import ObjectStore
from models.reports import reports
from models.reports.reports import KEPT_DAYS, Report, ReportScope
from pipelines.accounts.email_jobs import UNIQUE_KEY_PREFIX, EmailTemplate, email_job
from pipelines.files.store import store_file
from pipelines.reporting import report_request
from pipelines.reporting.formats.render import RenderedReport, render
from pipelines.reporting.group_names import with_names
from pipelines.reporting.report_request import ReportRequest
from pipelines.reporting.report_table import ReportTable
from pipelines.reporting.stored_result import stored_result

#: Reads the table of a report, in a transaction of one snapshot. Raises RequestError for what cannot be built.
BuildReport = Callable[[Connection, ReportRequest], ReportTable]

SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

#: Who reads the file.
AUDIENCES: Mapping[ReportScope, Audience] = {"user": "user", "account": "admins"}

#: Rows of a report: so many have about 100 MB of memory while they are written.
MAX_ROWS = 100_000

#: The steps of the progress.
STEPS = 3


def run(objects: ObjectStore, fonts: Path, build: BuildReport, attempt: Attempt) -> Ending:
    """Build the report of the job. Raises PermanentFailure, Unavailable and the reason to stop."""
    job = attempt.job
    with attempt.database.connection() as connection:
        report = reports.read(connection, job.arguments["report_id"], job.account_id)
    if report is None:
        return plain_ending(attempt, "completed", result={"deleted": True})
    outcome = stored_result(attempt, file_id_of(report)) or _build(objects, fonts, build, attempt, report)
    return _ending(attempt, report, outcome)


def file_id_of(report: Report) -> str:
    """Return the id of a report's file, the same in every attempt."""
    return f"file_{report.id.removeprefix('report_')}"


def _build(objects: ObjectStore, fonts: Path, build: BuildReport, attempt: Attempt, report: Report) -> dict[str, Any]:
    """Store the file. Returns its numbers."""
    attempt.report_progress(0, STEPS, note="reading")
    table = _read(attempt, build, report_request.from_json(report.query))
    attempt.report_progress(1, STEPS, note="writing")
    file = render(table, report.format, fonts)
    outcome = {"rows": len(table.rows), "bytes": len(file.content), "snapshot": int(table.snapshot.timestamp())}
    attempt.report_progress(2, STEPS, note="storing", resume=outcome)
    _store(objects, attempt, report, file)
    return outcome


def _read(attempt: Attempt, build: BuildReport, request: ReportRequest) -> ReportTable:
    try:
        with attempt.database.transaction() as connection:
            connection.execute(SNAPSHOT)
            table = build(connection, request)
            check_rows(table)
            return with_names(connection, table, request.account_id)
    except RequestError as error:
        raise PermanentFailure(error.message, code=error.code) from error


def check_rows(table: ReportTable) -> None:
    """Raise InvalidRequest for a table of more than MAX_ROWS rows."""
    if len(table.rows) > MAX_ROWS:
        message = (
            f"The report has {len(table.rows):,} rows, and at most {MAX_ROWS:,} are possible. "
            "Choose a longer interval, fewer groups, a filter or a shorter period."
        )
        raise InvalidRequest(message, code="too_many_groups")


def _store(objects: ObjectStore, attempt: Attempt, report: Report, file: RenderedReport) -> None:
    store_file(
        attempt.database,
        objects,
        account_id=report.account_id,
        user_id=report.user_id if report.scope == "user" else None,
        file_id=file_id_of(report),
        filename=file.filename,
        purpose="report",
        content_type=file.content_type,
        content=[file.content],
        audience=AUDIENCES[report.scope],
        days=KEPT_DAYS,
        job_id=attempt.job.id,
        check=attempt.check_current,
    )


def _ending(attempt: Attempt, report: Report, outcome: Mapping[str, Any]) -> Ending:
    file_id = file_id_of(report)
    result = {"report_id": report.id, "file_id": file_id, **outcome}

    def record(connection: Connection) -> None:
        reports.complete(connection, report.id, report.account_id, file_id, outcome)
        if report.account_id != PLATFORM_ACCOUNT:
            data = {"id": report.id, "file_id": file_id}
            events.record(connection, report.account_id, "report.completed", data, key=report.id)

    ending = plain_ending(attempt, "completed", result=result)
    emails = [_email(report, user_id) for user_id in report.deliver_to]
    return replace(ending, record=record, follow_ups=emails)


def _email(report: Report, user_id: str) -> NewJob:
    key = f"{UNIQUE_KEY_PREFIX}:{EmailTemplate.REPORT}:{report.id}:{user_id}"
    ids = {"user_id": user_id, "report_id": report.id, "report_account": report.account_id}
    return email_job(EmailTemplate.REPORT, unique_key=key, **ids)

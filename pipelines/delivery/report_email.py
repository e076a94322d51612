"""Render the e-mail with a report, when it is sent."""

from models.accounts import emails, files, members
from models.accounts.files import File
from models.jobs.jobs import PLATFORM_ACCOUNT, Job
from models.platform.database import Connection
from models.platform.errors import NotFound
from models.platform.object_store import ObjectStore
from models.reports import reports
from models.reports.reports import Report
from pipelines.delivery import email_templates
from pipelines.delivery.email_templates import Attachment, EmailContent
from pipelines.files.content import read_content
from pipelines.reporting.requested_report import may_receive

#: Bytes of a file that is attached; mail servers take about 10 MB, and in an e-mail it is a third larger.
MAX_ATTACHED = 2 * 1024 * 1024


def render_report(
    connection: Connection, job: Job, objects: ObjectStore, public_address: str
) -> tuple[str, EmailContent] | None:
    """Return the recipient's address and the e-mail; None if the report is gone, or they may no longer read it."""
    account_id, user_id = job.arguments["report_account"], job.arguments["user_id"]
    report = reports.read(connection, job.arguments["report_id"], account_id)
    file = files.read_any(connection, report.file_id, account_id) if report and report.file_id else None
    if report is None or file is None:
        return None
    if not may_receive(connection, account_id, report.user_id, report.scope, user_id):
        return None
    user, account = emails.read_user(connection, user_id), members.read_account(connection, account_id)
    if user is None or account is None:
        return None
    link = f"{public_address}{_content_path(report, file)}"
    until = f"{report.expires_at:%Y-%m-%d}"
    return user.email, email_templates.report(_title(report), account.name, link, until, _attachment(objects, file))


def _content_path(report: Report, file: File) -> str:
    """Return the path of the file for those who get the report."""
    across_accounts = report.account_id == PLATFORM_ACCOUNT
    return f"/admin/reports/{report.id}/content" if across_accounts else f"/v1/files/{file.id}/content"


def _title(report: Report) -> str:
    """Return what the report is of, without a name that somebody chose."""
    return f"{report.query['kind'].capitalize()} report ({report.format.upper()})"


def _attachment(objects: ObjectStore, file: File) -> Attachment | None:
    """Return the file if it is small and still there. Raises Unavailable: the e-mail is tried again."""
    if file.bytes > MAX_ATTACHED:
        return None
    try:
        return Attachment(file.filename, file.content_type, b"".join(read_content(objects, file)))
    except NotFound:
        return None

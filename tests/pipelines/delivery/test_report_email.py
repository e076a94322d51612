"""The e-mail with a report: the link, the file where it is small, and only to those who may still read it."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from models.accounts import accounts
from models.accounts.accounts import Caller, Role
from models.accounts.plans import Limits
from models.jobs.jobs import PLATFORM_ACCOUNT, enqueue
from models.platform.ids import new_id
from models.reports import reports
from pipelines.accounts.email_jobs import EmailTemplate, email_job
from pipelines.delivery import report_email
from pipelines.files.store import store_file
from pipelines.reporting.enqueue_report import enqueue_operator_report, enqueue_report
from pipelines.reporting.formats.render import render
from pipelines.reporting.requested_report import RequestedReport
from tests.pipelines.reporting.report_tables import table


@pytest.fixture
def owner(database):
    """A user with an account, and their address."""
    email = f"{new_id('me')}@example.com"
    with database.transaction() as connection:
        member = accounts.create(connection, email=email, password_hash=None)
        connection.execute("UPDATE accounts SET name = %s WHERE id = %s", ("<b>Ada</b>\r\nBcc: x", member.account_id))
    return SimpleNamespace(caller=Caller(member.user_id, member.account_id, Role.OWNER), email=email)


@pytest.fixture
def completed(database, mailbox, owner):
    """`completed(scope)` → the id of a report with a file. The scope `platform` is a report across accounts."""

    def completed(scope="account"):
        requested = RequestedReport(kind="usage", format="pdf", range="last_month")
        ids, caller, now = {"report_id": new_id("report"), "job_id": new_id("job")}, owner.caller, datetime.now(UTC)
        account_id = PLATFORM_ACCOUNT if scope == "platform" else caller.account_id
        with database.transaction() as connection:
            if scope == "platform":
                enqueue_operator_report(connection, requested, replace(caller, operator=True), now, asked={}, **ids)
            else:
                enqueue_report(connection, replace(requested, scope=scope), caller, Limits(), now, asked={}, **ids)
        file = render(table(), "pdf")
        stored = store_file(
            database, mailbox.sender.objects, account_id=account_id, user_id=None, file_id=new_id("file"),
            filename=file.filename, purpose="report", content_type=file.content_type, content=[file.content],
            audience="admins", days=30, job_id=ids["job_id"],
        )  # fmt: skip
        with database.transaction() as connection:
            reports.complete(connection, ids["report_id"], account_id, stored.id, {})
        return ids["report_id"]

    return completed


@pytest.fixture
def deliver(database, mailbox, owner):
    """`deliver(report_id)` → the e-mails that the owner gets."""

    def deliver(report_id, account_id=owner.caller.account_id):
        ids = {"user_id": owner.caller.user_id, "report_id": report_id, "report_account": account_id}
        with database.transaction() as connection:
            enqueue(connection, email_job(EmailTemplate.REPORT, **ids))
        return mailbox.deliver(owner.email)

    return deliver


def test_a_small_report_is_attached_and_linked(completed, deliver, settings):
    (message,) = deliver(completed())

    (attachment,) = message.iter_attachments()
    assert attachment.get_content_type() == "application/pdf"
    assert attachment.get_filename() == "sangha-usage-2026-10-01-to-2026-10-03.pdf"
    assert attachment.get_content() == render(table(), "pdf").content
    text = message.get_body().get_content()
    assert f"{settings.public_address}/v1/files/file_" in text
    assert "Usage report (PDF)" in message["Subject"]
    # Then the account's name is one line without effect
    assert "Bcc" not in message
    assert "\n" not in message["Subject"]


def test_a_large_report_is_linked_only(completed, deliver, monkeypatch):
    monkeypatch.setattr(report_email, "MAX_ATTACHED", 10)

    (message,) = deliver(completed())

    assert list(message.iter_attachments()) == []
    assert "too large for an e-mail" in message.get_content()


def test_who_is_no_admin_any_more_gets_no_report_of_the_account(completed, deliver, database, owner):
    report_id, own = completed(), completed("user")
    with database.connection() as connection:
        connection.execute("UPDATE memberships SET role = 'member' WHERE user_id = %s", (owner.caller.user_id,))

    assert deliver(report_id) == []
    assert len(deliver(own)) == 1


def test_a_report_across_accounts_is_for_operators_only(completed, deliver, database, owner, settings):
    # Given a report across accounts
    report_id = completed("platform")
    # When its recipient is an operator, and then is none any more
    with database.connection() as connection:
        connection.execute("UPDATE users SET operator = true WHERE id = %s", (owner.caller.user_id,))
        (message,) = deliver(report_id, PLATFORM_ACCOUNT)
        connection.execute("UPDATE users SET operator = false WHERE id = %s", (owner.caller.user_id,))
        later = deliver(report_id, PLATFORM_ACCOUNT)
    # Then one e-mail has the path for operators
    assert f"{settings.public_address}/admin/reports/{report_id}/content" in message.get_body().get_content()
    assert later == []


def test_a_former_member_gets_no_report(completed, deliver, database, owner):
    report_id = completed("user")
    with database.connection() as connection:
        connection.execute("DELETE FROM memberships WHERE user_id = %s", (owner.caller.user_id,))

    assert deliver(report_id) == []


def test_a_deleted_report_is_not_sent(completed, deliver, database, owner):
    report_id = completed()
    with database.connection() as connection:
        reports.delete(connection, report_id, owner.caller.account_id)

    assert deliver(report_id) == []

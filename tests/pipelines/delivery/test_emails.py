"""Given an e-mail's job, when it runs, then the recipient gets an e-mail with a working link."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from types import SimpleNamespace

import pytest

from models.accounts import accounts, invitations, members
from models.accounts import emails as addresses
from models.accounts.accounts import Role
from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import ConfigurationError
from models.platform.ids import new_id
from models.platform.settings import load_settings
from pipelines.accounts import email_jobs
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.delivery import email_templates, emails
from pipelines.delivery.mailers import NotDelivered
from tests.mailbox import token_in


@pytest.fixture
def user(database):
    with database.transaction() as connection:
        membership = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        return addresses.read_user(connection, membership.user_id)


def test_an_email_has_a_sender_and_a_link(mailbox, database, user):
    with database.transaction() as connection:
        email_jobs.enqueue_email(connection, EmailTemplate.VERIFY_ADDRESS, user_id=user.id)

    (message,) = mailbox.deliver(user.email)

    assert message["To"] == user.email
    assert message["From"] == "Sangha <sangha@localhost>"
    assert message["Auto-Submitted"] == "auto-generated"
    # In one line on the wire, too, so that it can be clicked in a file.
    link = f"http://127.0.0.1:8000/auth/verify?token={token_in(message)}"
    assert link.encode() in message.as_bytes()
    assert message_from_bytes(message.as_bytes(), policy=default).get_content().count(link) == 1


def test_a_repeated_email_is_identical(mailbox, database, user, begin):
    job = email_jobs.email_job(EmailTemplate.RESET_PASSWORD, user_id=user.id)
    attempt = begin(job)
    for _ in range(2):
        emails.run(mailbox.sender, attempt)

    first, second = mailbox.mailer.sent

    assert first["Message-ID"] == second["Message-ID"] == f"<{job.id}@localhost>"
    assert first.as_bytes() == second.as_bytes()
    assert token_in(first) not in str(attempt.job)


def test_rejected_email_fails_the_attempt_and_the_next_one_sends_it(mailbox, database, user, begin):
    job = email_jobs.email_job(EmailTemplate.VERIFY_ADDRESS, user_id=user.id)
    mailbox.mailer.error = NotDelivered("the mail server answered with status 451")

    with pytest.raises(NotDelivered):
        emails.run(mailbox.sender, begin(job))
    mailbox.mailer.error = None

    assert emails.run(mailbox.sender, begin(job)).result == {"sent": True}


def test_nothing_is_sent_for_verified_or_deleted_recipients(mailbox, database, user, begin):
    with database.transaction() as connection:
        assert addresses.verify(connection, user.id, user.email)

    for job in (
        email_jobs.email_job(EmailTemplate.VERIFY_ADDRESS, user_id=user.id),
        email_jobs.email_job(EmailTemplate.RESET_PASSWORD, user_id="user_gone"),
        email_jobs.email_job(EmailTemplate.INVITATION, invitation_id="inv_gone"),
    ):
        assert emails.run(mailbox.sender, begin(job)).result == {"sent": False}
    assert mailbox.mailer.sent == []


def test_emails_within_a_window_are_sent_once(mailbox, database, user):
    with database.transaction() as connection:
        for _ in range(3):
            email_jobs.enqueue_email(connection, EmailTemplate.VERIFY_ADDRESS, user_id=user.id, at_most_every=60)

    # Two if a window ended in between.
    assert len(mailbox.deliver(user.email)) in (1, 2)


def test_an_invitation_enqueued_by_an_earlier_version_is_not_sent_again(mailbox, database, account):
    guest, invitation_id = f"{new_id('guest')}@example.com", new_id("inv")
    arguments = {"letter": "invitation", "invitation_id": invitation_id}
    stored = NewJob(email_jobs.KIND, account, arguments, unique_key=f"letter:invitation:{invitation_id}")
    with database.transaction() as connection:
        invitations.create(connection, invitation_id, account, email=guest, role=Role.MEMBER, invited_by=None)
        enqueue(connection, stored)
        email_jobs.enqueue_email(connection, EmailTemplate.INVITATION, account_id=account, invitation_id=invitation_id)

    assert len(mailbox.deliver(guest)) == 1


def test_names_cannot_inject_headers_or_links(mailbox, database, user, account):
    evil = "Bank\r\nBcc: victim@example.com\r\n\r\nhttps://evil.example/ www.evil.example " + "x" * 500
    guest = f"{new_id('guest')}@example.com"
    with database.transaction() as connection:
        members.add(connection, account, user.id, Role.OWNER)
        members.rename_account(connection, account, evil)
        addresses.rename(connection, user.id, evil)
        invitation = invitations.create(
            connection, new_id("inv"), account, email=guest, role=Role.MEMBER, invited_by=user.id
        )
        email_jobs.enqueue_email(connection, EmailTemplate.INVITATION, account_id=account, invitation_id=invitation.id)

    (message,) = mailbox.deliver(guest)

    assert message["Bcc"] is None
    assert [address.addr_spec for address in message["To"].addresses] == [guest]
    assert message.get_content().count("://") == 1
    assert "www." not in message.get_content()
    assert len(message["Subject"]) < 120


def test_a_non_ascii_domain_is_sent_in_punycode(mailbox):
    job = SimpleNamespace(id="job_1", created_at=datetime.now(UTC))

    message = emails.compose(
        mailbox.sender, job, "someone@bücher.example", email_templates.EmailContent("Hello", "Good day.\n")
    )

    assert message["To"].addresses[0].addr_spec == "someone@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SANGHA_SMTP_URL", "http://me:secret@mail.example.com"),
        ("SANGHA_SMTP_URL", "smtp://me:secret@"),
        ("SANGHA_SMTP_URL", "smtp://me:secret@mail.example.com:port"),
        ("SANGHA_SMTP_URL", "smtp://me:secret@mail.example.com/?a=b"),
        ("SANGHA_PUBLIC_URL", "ftp://example.com"),
        ("SANGHA_PUBLIC_URL", "https://"),
        ("SANGHA_PUBLIC_URL", "https://example.com/below"),
        ("SANGHA_MAIL_FROM", "nobody"),
        ("SANGHA_MAIL_FROM", "A <a@example.com>\nBcc: b@example.com"),
    ],
)
def test_malformed_settings_are_named_in_one_line_without_the_password(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as error:
        load_settings()

    assert str(error.value).startswith(f"{name} is ")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)

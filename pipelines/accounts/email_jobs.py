"""Enqueue e-mails to users as jobs of the `delivery` pool.

A job holds ids only, so that no address and no secret is stored in its arguments: `pipelines.delivery.emails` looks up
the recipient and creates the secret of the link when it sends the e-mail.
"""

import time
from enum import StrEnum

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Connection

KIND = "email.send"

#: The argument of a job that names its template; jobs of earlier versions have it too.
TEMPLATE_ARGUMENT = "letter"

#: The prefix of unique keys. Stored jobs have it, so another one would send their e-mails again.
UNIQUE_KEY_PREFIX = "letter"


class EmailTemplate(StrEnum):
    """The templates, and the id by which each finds its recipient.

    VERIFY_ADDRESS    user_id        a link that verifies the address
    SIGNUP_ATTEMPTED  user_id        informs the owner of an address of an attempt to sign up with it
    RESET_PASSWORD    user_id        a link that sets a new password
    PASSWORD_CHANGED  user_id        informs a user that their password was changed
    INVITATION        invitation_id  a link that accepts an invitation to an account
    PAYMENT_FAILED       user_id, invoice_id   a payment failed, and is tried again; or none has arrived
    SUBSCRIPTION_UNPAID  user_id, invoice_id   the last try failed, too
    INVOICE           invoice_id     an invoice as PDF, to the account's billing address or to the owner `user_id`
    CREDIT_NOTE       credit_note_id  a credit note as PDF, to the recipients of an invoice
    SPENDING_LIMIT    user_id        informs an admin that most or all of a spending limit is spent
    REPORT            user_id, report_id, report_account  a report, with its file if it is small
    APPROVAL_REQUESTED   user_id, approval_id  a call of the user's turn waits for a decision
    WEBHOOK_DISABLED     user_id, endpoint_id  informs an admin that a webhook endpoint was disabled
    """

    VERIFY_ADDRESS = "verify_address"
    SIGNUP_ATTEMPTED = "signup_attempted"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - a template's name
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    INVITATION = "invitation"
    PAYMENT_FAILED = "payment_failed"
    SUBSCRIPTION_UNPAID = "subscription_unpaid"
    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"
    SPENDING_LIMIT = "spending_limit"
    REPORT = "report"
    APPROVAL_REQUESTED = "approval_requested"
    WEBHOOK_DISABLED = "webhook_disabled"


def enqueue_email(
    connection: Connection,
    template: EmailTemplate,
    *,
    account_id: str = PLATFORM_ACCOUNT,
    user_id: str | None = None,
    invitation_id: str | None = None,
    at_most_every: int | None = None,
) -> None:
    """Enqueue an e-mail in the caller's transaction. Nudge the queue after the commit.

    `account_id` owns the job. For an e-mail to a single user it is the platform's account, because members of an
    account see its jobs and may cancel them. Within `at_most_every` minutes only one e-mail is sent; an invitation is
    sent once.
    """
    ids = {"user_id": user_id, "invitation_id": invitation_id}
    key = f"{UNIQUE_KEY_PREFIX}:{template}:{invitation_id}" if invitation_id else None
    if at_most_every:
        key = f"{UNIQUE_KEY_PREFIX}:{template}:{user_id}:{current_window(at_most_every)}"
    enqueue(connection, email_job(template, account_id=account_id, unique_key=key, **ids))


def email_job(
    template: EmailTemplate, *, account_id: str = PLATFORM_ACCOUNT, unique_key: str | None = None, **ids: str | None
) -> NewJob:
    """Return the job that sends an e-mail, for callers that enqueue it as a follow-up."""
    arguments = {TEMPLATE_ARGUMENT: template.value} | {name: value for name, value in ids.items() if value}
    return NewJob(kind=KIND, account_id=account_id, arguments=arguments, unique_key=unique_key)


def approval_email(approval_id: str, account_id: str, user_id: str) -> NewJob:
    """Return the job that tells a user once that a call of their turn waits for a decision."""
    return email_job(
        EmailTemplate.APPROVAL_REQUESTED,
        unique_key=f"{UNIQUE_KEY_PREFIX}:{EmailTemplate.APPROVAL_REQUESTED}:{approval_id}",
        user_id=user_id,
        approval_id=approval_id,
        approval_account=account_id,
    )


def current_window(minutes: int) -> int:
    """Return the number of the current window of so many minutes, for unique keys."""
    return int(time.time() // (60 * minutes))

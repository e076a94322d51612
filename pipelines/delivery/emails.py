"""Send an e-mail: look up its recipient, create the secret of its link, render the template, hand it to the mailer.

An e-mail may be sent twice, if a worker dies between the mail server's reply and the commit. Both copies are identical:
the secret and the Message-ID are derived from the job's id, so that a mail program shows one of them, and the link of
either works.
"""

import hmac
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import partial

import email_validator

from models.access import api_keys
from models.accounts import email_tokens, emails, invitations, members, sent_emails
from models.accounts.email_tokens import TokenPurpose
from models.accounts.emails import UserProfile
from models.accounts.ownership import Access
from models.agents import approvals
from models.billing import invoices, payments, spending_notices
from models.billing.currencies import format_amount
from models.delivery import endpoints
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import Job
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.accounts.email_jobs import TEMPLATE_ARGUMENT, EmailTemplate
from pipelines.delivery import email_templates
from pipelines.delivery.email_templates import EmailContent
from pipelines.delivery.invoice_email import render_credit_note, render_invoice
from pipelines.delivery.mailers import Mailer
from pipelines.delivery.report_email import render_report

log = logging.getLogger(__name__)


#: E-mails that one mailbox gets within an hour, from all requests. Each template has a limit of its own, so that
#: attempts to sign up with an address do not keep its owner from setting a new password.
MAX_PER_HOUR: dict[EmailTemplate, int] = {
    EmailTemplate.VERIFY_ADDRESS: 5,
    EmailTemplate.SIGNUP_ATTEMPTED: 1,
    EmailTemplate.RESET_PASSWORD: 5,
    EmailTemplate.PASSWORD_CHANGED: 10,
    EmailTemplate.INVITATION: 10,
    EmailTemplate.PAYMENT_FAILED: 5,
    EmailTemplate.SUBSCRIPTION_UNPAID: 5,
    EmailTemplate.INVOICE: 20,
    EmailTemplate.CREDIT_NOTE: 20,
    EmailTemplate.SPENDING_LIMIT: 10,
    EmailTemplate.APPROVAL_REQUESTED: 20,
    EmailTemplate.REPORT: 20,
    EmailTemplate.WEBHOOK_DISABLED: 20,
}


@dataclass(frozen=True, slots=True)
class EmailSender:
    """The mailer, the settings for the sender's address and links, and the key from which secrets are derived.

    objects  has the files that are attached
    """

    settings: Settings
    key: bytes
    mailer: Mailer
    objects: ObjectStore

    def link(self, page: str, secret: str | None = None) -> str:
        """Return the URL of a page under `/auth`."""
        query = f"?token={secret}" if secret else ""
        return f"{self.settings.public_address}/auth/{page}{query}"


#: The recipient's address and the content; None where there is nothing to send any more.
Rendered = tuple[str, EmailContent] | None
Renderer = Callable[[Connection, EmailSender, Job], Rendered]


def run(sender: EmailSender, attempt: Attempt) -> Ending:
    """Send one e-mail. Raises NotDelivered, after which another attempt may succeed, and PermanentFailure."""
    attempt.check()
    template = EmailTemplate(attempt.job.arguments[TEMPLATE_ARGUMENT])
    with attempt.database.transaction() as connection:
        rendered = RENDERERS[template](connection, sender, attempt.job)
        if rendered is not None and not _admit(connection, attempt.job, template, rendered[0]):
            rendered = None
    if rendered is not None:
        _send(sender, attempt.job, *rendered)
    return plain_ending(attempt, "completed", result={"sent": rendered is not None})


def _admit(connection: Connection, job: Job, template: EmailTemplate, address: str) -> bool:
    """Count the e-mail for its recipient. Returns False if the mailbox has had enough of this template."""
    admitted = sent_emails.admit(connection, job.id, address, template, MAX_PER_HOUR[template])
    if not admitted:
        log.info("Job %s: not sent, since its recipient had %s such e-mails", job.id, MAX_PER_HOUR[template])
    return admitted


def _send(sender: EmailSender, job: Job, address: str, content: EmailContent) -> None:
    try:
        sender.mailer.send(compose(sender, job, address, content))
    except PermanentFailure as error:
        log.warning("Job %s: the e-mail was rejected: %s", job.id, error.message)
        raise


def compose(sender: EmailSender, job: Job, address: str, content: EmailContent) -> EmailMessage:
    """Return the message. Its policy refuses line breaks in headers."""
    # The longest lines of RFC 5322, so that a link is not broken and can be clicked in a file, too.
    message = EmailMessage(policy=SMTP.clone(max_line_length=998))
    _, from_address = parseaddr(sender.settings.mail_from)
    message["From"] = sender.settings.mail_from
    message["To"] = Address(addr_spec=_to_ascii(address))
    message["Subject"] = content.subject
    message["Date"] = format_datetime(job.created_at)
    message["Message-ID"] = f"<{job.id}@{from_address.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: suppresses automatic replies
    message.set_content(content.body)
    if (file := content.attachment) is not None:
        maintype, _, subtype = file.content_type.partition(";")[0].partition("/")
        message.add_attachment(file.content, maintype=maintype, subtype=subtype, filename=file.filename)
    return message


def link_secret(key: bytes, job_id: str) -> str:
    """Derive the secret of an e-mail's link, 43 characters; without the key it is indistinguishable from random."""
    derived = hmac.digest(key, b"sangha e-mail token " + job_id.encode(), "sha256")
    return urlsafe_b64encode(derived).decode().rstrip("=")


def _verify_address(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    user = _read_user(connection, job)
    if user is None or user.verified or emails.find_owner(connection, user.email):
        return None
    secret = _issue_token(connection, sender, job, TokenPurpose.VERIFY, user)
    return user.email, email_templates.verify_address(sender.link("verify", secret))


def _reset_password(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    user = _read_user(connection, job)
    if user is None:
        return None
    secret = _issue_token(connection, sender, job, TokenPurpose.RESET, user)
    return user.email, email_templates.reset_password(sender.link("reset", secret))


def _signup_attempted(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    user = _read_user(connection, job)
    if user is None:
        return None
    return user.email, email_templates.signup_attempted(sender.settings.public_address, sender.link("reset"))


def _password_changed(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    user = _read_user(connection, job)
    if user is None:
        return None
    keys = [f"{key.name} ({key.hint})" for key in api_keys.list_active_of(connection, user.id)]
    return user.email, email_templates.password_changed(sender.link("reset"), keys)


def _invitation(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    secret = link_secret(sender.key, job.id)
    invitation_id, account_id = job.arguments["invitation_id"], job.account_id
    if not invitations.set_secret(connection, invitation_id, account_id, secret):
        return None
    invitation = invitations.read(connection, invitation_id, account_id)
    assert invitation is not None
    inviter = emails.read_user(connection, invitation.invited_by or "")
    inviter_name = (inviter.name or inviter.email) if inviter else "A former member"
    link = sender.link("invitation", secret)
    return invitation.email, email_templates.invitation(invitation.account_name, inviter_name, invitation.role, link)


def _invoice(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    return render_invoice(connection, job, sender.settings.home / "fonts")


def _credit_note(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    return render_credit_note(connection, job, sender.settings.home / "fonts")


def _spending_limit(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    user, arguments = _read_user(connection, job), job.arguments
    scope = arguments.get("scope", "")  # empty arguments are not stored
    if user is None:
        return None
    notice = spending_notices.notice(connection, arguments["limited_account"], scope, user.id)
    if notice is None:
        return None
    amount = f"{format_amount(notice.amount, notice.currency)} {notice.currency}"
    percent = int(arguments["percent"])
    return user.email, email_templates.spending_limit(notice.account_name, notice.key_name, amount, percent)


def _approval_requested(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    user, approval_id = _read_user(connection, job), job.arguments["approval_id"]
    approval = approvals.read(connection, approval_id, Access.account(job.arguments["approval_account"]))
    if user is None or approval is None or approval.status != "pending":
        return None
    tool = f"{approval.server_label} {approval.tool_name}"
    url = f"{sender.settings.public_address}/v1/approvals/{approval.id}"
    expires = f"{approval.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return user.email, email_templates.approval_requested(approval.agent_name, tool, url, expires)


def _webhook_disabled(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    user, arguments = _read_user(connection, job), job.arguments
    endpoint = endpoints.read(connection, arguments["endpoint_id"], arguments["endpoint_account"])
    if user is None or endpoint is None or endpoint.enabled or endpoint.disabled_reason == "requested":
        return None
    if members.read(connection, endpoint.account_id, user.id) is None:  # the user has left the account
        return None
    address = f"{sender.settings.public_address}/v1/webhook_endpoints/{endpoint.id}"
    return user.email, email_templates.webhook_disabled(address, endpoint.disabled_reason == "gone")


def _report(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    return render_report(connection, job, sender.objects, sender.settings.public_address)


def _unpaid_invoice(
    render: Callable[[str, str], EmailContent], connection: Connection, sender: EmailSender, job: Job
) -> Rendered:
    user = _read_user(connection, job)
    invoice = invoices.read(connection, job.arguments["invoice_id"], job.account_id)
    if user is None or invoice.amount_due == 0:
        return None
    amount = f"{format_amount(invoice.amount_due, invoice.currency)} {invoice.currency}"
    return user.email, render(invoice.number or "", amount)


def _payment_failed(connection: Connection, sender: EmailSender, job: Job) -> Rendered:
    """Render a reminder where the invoice is to be paid by bank transfer."""
    newest = payments.list_payments(connection, job.account_id, invoice_id=job.arguments["invoice_id"], limit=1)
    by_transfer = bool(newest) and newest[0].gateway == "manual"
    render = email_templates.invoice_overdue if by_transfer else email_templates.payment_failed
    return _unpaid_invoice(render, connection, sender, job)


RENDERERS: dict[EmailTemplate, Renderer] = {
    EmailTemplate.VERIFY_ADDRESS: _verify_address,
    EmailTemplate.SIGNUP_ATTEMPTED: _signup_attempted,
    EmailTemplate.RESET_PASSWORD: _reset_password,
    EmailTemplate.PASSWORD_CHANGED: _password_changed,
    EmailTemplate.INVITATION: _invitation,
    EmailTemplate.PAYMENT_FAILED: _payment_failed,
    EmailTemplate.SUBSCRIPTION_UNPAID: partial(_unpaid_invoice, email_templates.subscription_unpaid),
    EmailTemplate.INVOICE: _invoice,
    EmailTemplate.CREDIT_NOTE: _credit_note,
    EmailTemplate.SPENDING_LIMIT: _spending_limit,
    EmailTemplate.APPROVAL_REQUESTED: _approval_requested,
    EmailTemplate.REPORT: _report,
    EmailTemplate.WEBHOOK_DISABLED: _webhook_disabled,
}


def _read_user(connection: Connection, job: Job) -> UserProfile | None:
    return emails.read_user(connection, job.arguments["user_id"])


def _issue_token(
    connection: Connection, sender: EmailSender, job: Job, purpose: TokenPurpose, user: UserProfile
) -> str:
    secret = link_secret(sender.key, job.id)
    email_tokens.issue(connection, purpose, secret, user_id=user.id, email=user.email)
    return secret


def _to_ascii(address: str) -> str:
    """Return the address with its domain in Punycode, which every server takes. Raises PermanentFailure."""
    try:
        checked = email_validator.validate_email(
            address, check_deliverability=False, test_environment=True, globally_deliverable=False
        )
    except email_validator.EmailNotValidError:
        raise PermanentFailure("The e-mail address is not valid.", code="email_refused") from None
    if not checked.local_part.isascii():  # of a user of an earlier version
        raise PermanentFailure("The e-mail address is not ASCII before the @.", code="email_refused")
    return checked.ascii_email or checked.normalized

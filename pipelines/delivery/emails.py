"""Sending a letter: find whom it goes to, make the secret of its link, write it, hand it to the mailer.

It may be sent twice, where a worker dies between the mail server's word and our own commit. Both copies are then the
same letter: the secret and the Message-ID come from the job's id, so a mail program takes the second for the first, and
either link is good.
"""

import hmac
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

import email_validator

from models.accounts import email_tokens, emails, invitations
from models.accounts.email_tokens import TokenPurpose
from models.accounts.emails import UserProfile
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import Job
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.delivery import email_templates
from pipelines.delivery.email_templates import EmailContent
from pipelines.delivery.mailers import Mailer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmailSender:
    """What letters are written with: the settings name their sender and their links, the key makes their secrets."""

    settings: Settings
    key: bytes
    mailer: Mailer

    def link(self, page: str, secret: str | None = None) -> str:
        """The address of a page for people."""
        query = f"?token={secret}" if secret else ""
        return f"{self.settings.public_address}/auth/{page}{query}"


#: A text and the address that it goes to, or None where there is nothing to tell any more.
Written = tuple[str, EmailContent] | None
Writer = Callable[[Connection, EmailSender, Job], Written]


def run(office: EmailSender, attempt: Attempt) -> Ending:
    """Send one letter. Raises NotDelivered, which is worth another attempt, and PermanentFailure."""
    attempt.check()
    write = WRITERS[EmailTemplate(attempt.job.arguments["letter"])]
    with attempt.database.transaction() as connection:
        written = write(connection, office, attempt.job)
    if written is not None:
        _hand_over(office, attempt.job, *written)
    return plain_ending(attempt, "completed", result={"sent": written is not None})


def _hand_over(office: EmailSender, job: Job, address: str, text: EmailContent) -> None:
    try:
        office.mailer.send(compose(office, job, address, text))
    except PermanentFailure as refusal:
        log.warning("the letter of %s was refused: %s", job.id, refusal.message)
        raise


def compose(office: EmailSender, job: Job, address: str, text: EmailContent) -> EmailMessage:
    """The message. Its headers are set through a policy that refuses line ends in them."""
    # Lines as long as RFC 5322 allows: a link in one piece can be clicked also in the file.
    message = EmailMessage(policy=SMTP.clone(max_line_length=998))
    _, sender = parseaddr(office.settings.mail_from)
    message["From"] = office.settings.mail_from
    message["To"] = Address(addr_spec=_as_ascii(address))
    message["Subject"] = text.subject
    message["Date"] = format_datetime(job.created_at)
    message["Message-ID"] = f"<{job.id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notes, please
    message.set_content(text.body)
    return message


def link_secret(key: bytes, job_id: str) -> str:
    """The secret of a letter's link, 43 characters; who lacks the installation's key can't tell it from chance."""
    made = hmac.digest(key, b"sangha e-mail token " + job_id.encode(), "sha256")
    return urlsafe_b64encode(made).decode().rstrip("=")


def _verify_address(connection: Connection, office: EmailSender, job: Job) -> Written:
    person = _person(connection, job)
    if person is None or person.verified or emails.find_owner(connection, person.email):
        return None
    secret = _issue(connection, office, job, TokenPurpose.VERIFY, person)
    return person.email, email_templates.verify_address(office.link("verify", secret))


def _reset_password(connection: Connection, office: EmailSender, job: Job) -> Written:
    person = _person(connection, job)
    if person is None:
        return None
    secret = _issue(connection, office, job, TokenPurpose.RESET, person)
    return person.email, email_templates.reset_password(office.link("reset", secret))


def _signup_attempted(connection: Connection, office: EmailSender, job: Job) -> Written:
    person = _person(connection, job)
    if person is None:
        return None
    return person.email, email_templates.signup_attempted(office.settings.public_address, office.link("reset"))


def _password_changed(connection: Connection, office: EmailSender, job: Job) -> Written:
    person = _person(connection, job)
    return (person.email, email_templates.password_changed(office.link("reset"))) if person else None


def _invitation(connection: Connection, office: EmailSender, job: Job) -> Written:
    secret = link_secret(office.key, job.id)
    invitation_id, account_id = job.arguments["invitation_id"], job.account_id
    if not invitations.set_secret(connection, invitation_id, account_id, secret):
        return None
    invitation = invitations.read(connection, invitation_id, account_id)
    assert invitation is not None
    inviter = emails.read_user(connection, invitation.invited_by or "")
    who = (inviter.name or inviter.email) if inviter else "Somebody"
    link = office.link("invitation", secret)
    return invitation.email, email_templates.invitation(invitation.account_name, who, invitation.role, link)


WRITERS: dict[EmailTemplate, Writer] = {
    EmailTemplate.VERIFY_ADDRESS: _verify_address,
    EmailTemplate.SIGNUP_ATTEMPTED: _signup_attempted,
    EmailTemplate.RESET_PASSWORD: _reset_password,
    EmailTemplate.PASSWORD_CHANGED: _password_changed,
    EmailTemplate.INVITATION: _invitation,
}


def _person(connection: Connection, job: Job) -> UserProfile | None:
    return emails.read_user(connection, job.arguments["user_id"])


def _issue(connection: Connection, office: EmailSender, job: Job, purpose: TokenPurpose, person: UserProfile) -> str:
    secret = link_secret(office.key, job.id)
    email_tokens.issue(connection, purpose, secret, user_id=person.id, email=person.email)
    return secret


def _as_ascii(address: str) -> str:
    """The address as every mail server takes it, its domain in Punycode; a local part beyond ASCII stays as it is."""
    try:
        checked = email_validator.validate_email(
            address, check_deliverability=False, test_environment=True, globally_deliverable=False
        )
    except email_validator.EmailNotValidError:
        raise PermanentFailure("The address takes no mail.", code="email_refused") from None
    return checked.ascii_email or checked.normalized

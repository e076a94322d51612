"""Deliver the e-mails to an address, as the delivery pool would."""

import re
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import partial

import redis

from models.jobs import attempts
from models.jobs.attempt_context import open_attempt
from models.journal.writer import JournalWriter
from models.platform.database import Database, fetch_all
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.accounts import password_reset
from pipelines.delivery import emails

#: The queued jobs that send an e-mail to an address.
QUEUED_EMAILS = """
SELECT id, kind FROM jobs
WHERE state = 'queued' AND kind IN ('email.send', 'password.forgotten') AND (
    arguments ->> 'user_id' IN (SELECT id FROM users WHERE lower(email) = lower(%(address)s))
    OR arguments ->> 'invitation_id' IN (SELECT id FROM invitations WHERE email = %(address)s)
    OR arguments ->> 'invoice_id' IN (
        SELECT invoices.id FROM invoices JOIN billing_details USING (account_id) WHERE email = %(address)s)
    OR arguments ->> 'email' = %(address)s)
ORDER BY id
"""


@dataclass
class RecordingMailer:
    """A mailer that records what it sends, or raises `error`."""

    sent: list[EmailMessage] = field(default_factory=list)
    error: Exception | None = None

    def send(self, message: EmailMessage) -> None:
        """Record a message."""
        if self.error is not None:
            raise self.error
        self.sent.append(message)


class Mailbox:
    """Runs the jobs that send e-mails to an address."""

    def __init__(self, settings: Settings, database: Database, client: redis.Redis) -> None:
        self.database = database
        self.client = client
        self.writer = JournalWriter(client, lambda *claim: True)
        self.mailer = RecordingMailer()
        self.sender = emails.EmailSender(settings, b"a key of the tests", self.mailer, ObjectStore.open(settings))

    def deliver(self, address: str) -> list[EmailMessage]:
        """Send the queued e-mails to an address and return them."""
        count = len(self.mailer.sent)
        while jobs := self._queued(address):
            for job in jobs:
                self._run(job["id"], job["kind"])
        return self.mailer.sent[count:]

    def token(self, address: str) -> str:
        """Send the queued e-mails to an address and return the token in the last one."""
        return token_in(self.deliver(address)[-1])

    def _queued(self, address: str) -> list[dict[str, str]]:
        with self.database.connection() as connection:
            return fetch_all(connection, QUEUED_EMAILS, {"address": address})

    def _run(self, job_id: str, kind: str) -> None:
        run = password_reset.run if kind == password_reset.KIND else partial(emails.run, self.sender)
        with self.database.connection() as connection:
            job = attempts.claim(connection, job_id, message_id=new_id("message"), worker=new_id("worker"))
        assert job is not None
        attempt = open_attempt(job, self.database, self.client, self.writer)
        ending = run(attempt)
        with self.database.transaction() as connection:
            attempts.end(connection, attempt.job, ending, list(ending.events))


def token_in(email: EmailMessage) -> str:
    """Return the token in the link of an e-mail."""
    match = re.search(r"\?token=(\S+)", email.get_content())
    assert match, email
    return match[1]

"""The post: delivers the letters to one address, as the delivery pool would, into the hands of the test."""

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
from models.platform.settings import Settings
from pipelines.accounts import password_reset
from pipelines.delivery import emails

#: The jobs that lead to a letter to somebody.
WAITING = """
SELECT id, kind FROM jobs
WHERE state = 'queued' AND kind IN ('email.send', 'password.forgotten') AND (
    arguments ->> 'user_id' IN (SELECT id FROM users WHERE lower(email) = lower(%(address)s))
    OR arguments ->> 'invitation_id' IN (SELECT id FROM invitations WHERE email = %(address)s)
    OR arguments ->> 'email' = %(address)s)
ORDER BY id
"""


@dataclass
class Bag:
    """A mailer that keeps what it is given."""

    letters: list[EmailMessage] = field(default_factory=list)
    error: Exception | None = None

    def send(self, message: EmailMessage) -> None:
        """Keep it, or fail as told."""
        if self.error is not None:
            raise self.error
        self.letters.append(message)


class Post:
    """Runs what would be written to an address."""

    def __init__(self, settings: Settings, database: Database, client: redis.Redis) -> None:
        self.database = database
        self.client = client
        self.writer = JournalWriter(client, lambda job_id, attempt: True)
        self.bag = Bag()
        self.office = emails.EmailSender(settings, b"a key of the tests", self.bag)

    def letters(self, address: str) -> list[EmailMessage]:
        """Deliver all that waits for the address; returns it."""
        before = len(self.bag.letters)
        while jobs := self._waiting(address):
            for job in jobs:
                self._work(job["id"], job["kind"])
        return self.bag.letters[before:]

    def secret(self, address: str) -> str:
        """The secret in the last of the letters that wait for the address."""
        return secret_in(self.letters(address)[-1])

    def _waiting(self, address: str) -> list[dict[str, str]]:
        with self.database.connection() as connection:
            return fetch_all(connection, WAITING, {"address": address})

    def _work(self, job_id: str, kind: str) -> None:
        run = password_reset.run if kind == password_reset.KIND else partial(emails.run, self.office)
        with self.database.connection() as connection:
            claimed = attempts.claim(connection, job_id, message_id=new_id("message"), worker=new_id("worker"))
        assert claimed is not None
        attempt = open_attempt(claimed, self.database, self.client, self.writer)
        ending = run(attempt)
        with self.database.transaction() as connection:
            attempts.end(connection, attempt.job, ending, list(ending.events))


def secret_in(letter: EmailMessage) -> str:
    """What the link of a letter carries."""
    found = re.search(r"\?token=(\S+)", letter.get_content())
    assert found, letter
    return found[1]

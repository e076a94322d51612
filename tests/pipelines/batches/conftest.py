"""Batches without a queue: the test runs the attempts of a batch's job and of its lines itself."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from models.accounts import accounts, files
from models.accounts.accounts import Caller, Role
from models.accounts.ownership import Access
from models.accounts.plans import Limits
from models.batches import batches
from models.batches.batches import Batch
from models.jobs import attempts
from models.jobs.attempt_context import Attempt, open_attempt
from models.jobs.attempts import Ending
from models.journal.writer import JournalWriter
from models.platform.database import Database
from models.platform.errors import Cancelled, Released
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.batches import run as batch_run
from pipelines.batches.requested_batches import create_batch
from pipelines.batches.worker import BatchWorker
from pipelines.chat import turn
from pipelines.embeddings import embed
from pipelines.files.content import read_content
from pipelines.files.store import store_file
from tests.pipelines.chat.conftest import FakeEngine
from tests.pipelines.embeddings.test_embed import FakeEmbedder


def request_line(number: int, *, url: str = "/v1/responses", **changes: Any) -> bytes:
    """Return a line of an input file."""
    body = {"input": f"Say {number}"}
    return json.dumps(
        {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": body, **changes}
    ).encode()


@dataclass
class Batches:
    """Creates batches of one user, and runs their jobs and those of their lines."""

    database: Database
    client: redis.Redis
    writer: JournalWriter
    worker: BatchWorker
    caller: Caller
    limits: Limits = field(default_factory=Limits)
    engine: FakeEngine = field(default_factory=lambda: FakeEngine("Done", "."))

    def store_input(self, content: bytes, purpose: str = "batch") -> str:
        """Store a file. Returns its id."""
        file_id = new_id("file")
        store_file(
            self.database, self.worker.objects, account_id=self.caller.account_id, user_id=self.caller.user_id,
            file_id=file_id, filename="in.jsonl", purpose=purpose, content_type="application/jsonl",
            content=iter([content]), audience="user", days=None, job_id=None,
        )  # fmt: skip
        return file_id

    def create(self, content: bytes | int, *, endpoint: str = "/v1/responses", **options: Any) -> Batch:
        """Create a batch of a file with this content, or with so many requests."""
        if isinstance(content, int):
            content = b"\n".join(request_line(number, url=endpoint) for number in range(1, content + 1))
        return create_batch(
            self.database, self.caller, self.limits, batch_id=new_id("batch"), job_id=new_id("job"), endpoint=endpoint,
            input_file_id=self.store_input(content), **options,
        )  # fmt: skip

    def read(self, batch: Batch) -> Batch:
        """Return the batch as it is now."""
        with self.database.connection() as connection:
            found = batches.read(connection, batch.id, Access.account(batch.account_id))
        assert found is not None
        return found

    def begin(self, job_id: str) -> Attempt:
        """Claim a job, whether it is due or not."""
        with self.database.connection() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'queued', run_at = now() WHERE id = %s AND state = 'scheduled'", (job_id,)
            )
            claimed = attempts.claim(connection, job_id, message_id=new_id("message"), worker=new_id("worker"))
        assert claimed is not None
        return open_attempt(claimed, self.database, self.client, self.writer)

    def settle(self, attempt: Attempt, ending: Ending) -> None:
        """End the job of an attempt."""
        with self.database.batch() as connection:
            attempts.end(connection, attempt.job, ending, [*attempt.journal.archivable(), *ending.events])

    def look(self, batch: Batch) -> Batch:
        """Run the batch's job until it waits, or has ended."""
        attempt = self.begin(batch.job_id)
        try:
            ending = batch_run.run(self.worker, self.client, attempt)
        except Released as released:
            with self.database.transaction() as connection:
                events, delay = attempt.journal.archivable(), max(released.delay, 1)
                attempts.release(connection, attempt.job, events, delay=delay, advanced=released.advanced)
        else:
            self.settle(attempt, ending)
        return self.read(batch)

    def line_jobs(self, batch: Batch) -> list[Mapping[str, Any]]:
        """Return id, kind, queue and request of the unfinished jobs of a batch's lines, in order."""
        with self.database.connection() as connection:
            return connection.execute(
                """
                SELECT jobs.id, jobs.kind, jobs.queue, jobs.cancel_requested_at, position FROM batch_lines
                JOIN jobs ON jobs.id = ANY (job_ids)
                WHERE batch_id = %s AND state IN ('queued', 'scheduled') ORDER BY position, jobs.id
                """,
                (batch.id,),
            ).fetchall()

    def answer(self, job: Mapping[str, Any]) -> None:
        """Run the job of a line."""
        attempt = self.begin(job["id"])
        if job["kind"] == "embedding.create":
            self.settle(attempt, embed.run(FakeEmbedder(), attempt))
            return
        try:
            if attempt.job.cancel_requested_at:
                raise Cancelled("cancelled")
            ending = turn.run(self.engine, attempt)
        except Cancelled:
            ending = turn.end(attempt, "cancelled", None)
        assert isinstance(ending, Ending)
        self.settle(attempt, ending)

    def finish(self, batch: Batch) -> Batch:
        """Run the batch and its lines until it has ended."""
        while not (batch := self.look(batch)).ended:
            for job in self.line_jobs(batch):
                self.answer(job)
        return batch

    def content(self, file_id: str | None) -> list[dict[str, Any]]:
        """Return the lines of a file."""
        assert file_id is not None
        with self.database.connection() as connection:
            file = files.read_any(connection, file_id, self.caller.account_id)
        assert file is not None
        return [json.loads(line) for line in b"".join(read_content(self.worker.objects, file)).splitlines()]


@pytest.fixture
def make_batches(database: Database, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Callable[..., Batches]]:
    """`make_batches()` → the batches of a new user."""
    writer = JournalWriter(redis_client, lambda *claim: True)
    settings = Settings(data_dir=tmp_path)
    worker = BatchWorker(settings, ObjectStore.open(settings))

    def make(**options: Any) -> Batches:
        with database.transaction() as connection:
            member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        caller = Caller(member.user_id, member.account_id, Role.OWNER)
        return Batches(database, redis_client, writer, worker, caller, **options)

    yield make
    writer.stop()


@pytest.fixture
def user_batches(make_batches: Callable[..., Batches]) -> Batches:
    """The batches of a user."""
    return make_batches()

"""Turns without a queue: the test starts, claims and runs them itself."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
import redis

from models.accounts import accounts
from models.accounts.accounts import Caller, Role
from models.accounts.ownership import Access
from models.jobs import attempts
from models.jobs.attempt_context import Attempt, open_attempt
from models.jobs.attempts import Ending
from models.jobs.leases import GIVE_BACK_OF_WORKER
from models.journal.writer import JournalWriter
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.database import Database
from models.platform.ids import new_id
from models.turns.responses import Response, read
from pipelines.chat.new_turn import AcceptedTurn, NewTurn
from pipelines.chat.start_turn import new_turn_ids, start_turn
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    ReasoningToken,
    Sampling,
    Token,
    ToolCall,
)
from pipelines.memory.store import write_memories
from tests.accounts import delete_accounts

REQUEST = {
    "model": "fake", "instructions": None, "background": False, "metadata": {}, "temperature": None, "top_p": None,
    "max_output_tokens": None, "user": None,
}  # fmt: skip


class FakeEngine:
    """An engine that generates given texts and calls, and records its arguments.

    Its tokens are words; a call counts as one.
    """

    name = "fake"
    endpoint = ""
    slots = 1
    counts_exactly = True

    def __init__(
        self,
        *outputs: str | ReasoningToken | Token | GeneratedCall,
        continues: bool = True,
        context: int = 1000,
        reasons: bool = False,
    ) -> None:
        self.outputs = outputs
        self.reasons = reasons
        self.hidden_reasoning = 0
        self.reasonings: list[str] = []
        self.continues = continues
        self.context = context
        self.reason = "stop"
        self.cached_tokens = 2
        self.error: Exception | None = None
        self.before_token: Callable[[int], None] = lambda position: None
        self.prompts: list[Sequence[Message]] = []
        self.prefixes: list[str] = []
        self.samplings: list[Sampling] = []
        self.output_formats: list[OutputFormat] = []
        self.calls: list[list[ToolCall]] = []
        self.cache_owners: list[str | None] = []

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        return sum(len(message.content.split()) for message in prompt)

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        return 0

    def generate(
        self,
        prompt: Sequence[Message],
        *,
        prefix: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
        output_format: OutputFormat = PLAIN_TEXT,
        reasoning: str = "",
        calls: Sequence[ToolCall] = (),
        cache_owner: str | None = None,
    ) -> Iterator[EngineOutput]:
        self.prompts.append(prompt)
        self.prefixes.append(prefix)
        self.reasonings.append(reasoning)
        self.samplings.append(sampling)
        self.output_formats.append(output_format)
        self.calls.append(list(calls))
        self.cache_owners.append(cache_owner)
        outputs = self.outputs[: sampling.max_output_tokens]
        for position, output in enumerate(outputs):
            self.before_token(position)
            if cancelled():
                yield Finish("cancelled", self.count(prompt), 0, position)
                return
            yield Token(output, 1) if isinstance(output, str) else output
        if self.error is not None:
            raise self.error
        reason = self.reason if len(outputs) == len(self.outputs) else "length"
        yield Finish(reason, self.count(prompt), self.cached_tokens, len(outputs), self.hidden_reasoning)

    def close(self) -> None:
        pass


class TurnHarness:
    """An account with a journal writer, and the steps of running its turns."""

    def __init__(self, database: Database, client: redis.Redis) -> None:
        self.database = database
        self.client = client
        with database.transaction() as connection:
            member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        self.caller = Caller(member.user_id, member.account_id, Role.OWNER)
        self.writer = JournalWriter(client, self._is_current)

    def close(self) -> None:
        self.writer.stop()
        delete_accounts(self.database, [self.caller.account_id])

    def remember(self, text: str, at: datetime) -> NewMemory:
        """Store a memory of the user."""
        new, caller = NewMemory(new_id("mem"), text, "user", at), self.caller
        write_memories(
            self.database,
            lambda texts: [[1.0] * 384 for _ in texts],
            SpaceKey(caller.account_id, caller.user_id),
            [new],
        )
        return new

    def start(
        self,
        *texts: str,
        conversation: str | None = None,
        previous: str | None = None,
        items: Sequence[dict[str, Any]] = (),
        shares_fields: bool = True,
        space: str = "",
        **request: Any,
    ) -> AcceptedTurn:
        """Start a turn with messages of these texts, and these items; without either, a hello."""
        messages = [
            {"id": new_id("msg"), "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
            for text in texts or (() if items else ("hello",))
        ]
        turn = NewTurn({**REQUEST, **request}, [*messages, *items], conversation, previous, space=space)
        return start_turn(self.database, self.caller, turn, *new_turn_ids(), shares_fields=shares_fields)

    def attempt(self, started: AcceptedTurn) -> Attempt:
        """Claim a turn's next attempt."""
        return self.claim(started.response.job_id)

    def claim(self, job_id: str) -> Attempt:
        """Claim a job's next attempt."""
        with self.database.connection() as connection:
            job = attempts.claim(connection, job_id, message_id=new_id("message"), worker=new_id("worker"))
        assert job is not None
        return open_attempt(job, self.database, self.client, self.writer)

    def crash_worker(self, attempt: Attempt) -> None:
        """Release the attempt as if its worker had crashed: its events are in Redis."""
        assert self.writer.drain()
        with self.database.connection() as connection:
            connection.execute(GIVE_BACK_OF_WORKER, {"workers": [attempt.job.worker]})
            connection.execute(
                "UPDATE jobs SET state = 'queued', run_at = now() WHERE id = %s", (attempt.job.id,)
            )  # at once

    def settle(self, attempt: Attempt, ending: Ending) -> None:
        """End the job as the job runner does."""
        with self.database.transaction() as connection:
            attempts.end(connection, attempt.job, ending, [*attempt.journal.archivable(), *ending.events])
        attempt.journal.append_endings(ending.events)

    def stored_response(self, started: AcceptedTurn) -> Response:
        with self.database.connection() as connection:
            response = read(connection, started.response.id, Access.own(self.caller))
        assert response is not None
        return response

    def billed(self, started: AcceptedTurn) -> list[tuple[int, int, int]]:
        with self.database.connection() as connection:
            rows = connection.execute(
                "SELECT * FROM usage_records WHERE job_id = %s", (started.response.job_id,)
            ).fetchall()
        return [(row["input_tokens"], row["cached_tokens"], row["output_tokens"]) for row in rows]

    def _is_current(self, job_id: str, attempt: int, claim_id: UUID | None) -> bool:
        with self.database.connection() as connection:
            return attempts.is_current(connection, job_id, attempt, claim_id)


@pytest.fixture
def harness(database: Database, redis_client: redis.Redis) -> Iterator[TurnHarness]:
    """An account of its own for the test."""
    harness = TurnHarness(database, redis_client)
    yield harness
    harness.close()


@pytest.fixture
def fake_engine() -> type[FakeEngine]:
    """`fake_engine("a ", "b ")` → an engine that generates these texts."""
    return FakeEngine

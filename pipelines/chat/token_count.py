"""Count the tokens of a turn's prompt without running it. Only the engine can count: it is a short job of its pool."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from models.accounts.accounts import Caller
from models.accounts.ownership import Access
from models.accounts.plans import Limits
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.platform.database import Database
from models.platform.ids import new_id
from models.turns.responses import Response
from pipelines.chat.prompt import assemble_messages, output_format_of
from pipelines.chat.thread import find_thread, resolve_items
from pipelines.inference.context import count_tokens
from pipelines.inference.engine import Engine

KIND = "tokens.count"


@dataclass(frozen=True, slots=True)
class TokenCountRequest:
    """The input of a token count: that of a turn, see `pipelines.chat.start_turn.NewTurn`."""

    request: Mapping[str, Any]
    input: Sequence[Mapping[str, Any]]
    conversation_id: str | None = None
    previous_id: str | None = None


def enqueue_count(database: Database, caller: Caller, count: TokenCountRequest, job_id: str, limits: Limits) -> None:
    """Enqueue the count. Announce the job to the queue after this.

    Raises NotFound and InvalidRequest, as `find_thread` and `resolve_items` do, and LimitExceeded.
    """
    with database.transaction() as connection:
        find_thread(connection, Access.own(caller), count.conversation_id, count.previous_id)
        items = resolve_items(connection, Access.own(caller), new_id("resp"), count.input)
        arguments = {**asdict(count), "input": items}
        job = NewJob(KIND, caller.account_id, arguments, id=job_id, owner_id=caller.user_id)
        check_unfinished_jobs(connection, caller.account_id, limits, size=job.total_bytes)
        enqueue(connection, job)


def run(engine: Engine, attempt: Attempt) -> Ending:
    """Assemble the prompt as a turn would, and count all of it, whether or not it fits into the context.

    Raises PermanentFailure(code="context_length_exceeded") for one that is longer by far.
    """
    response = _hypothetical_turn(attempt)
    with attempt.database.connection() as connection:
        messages = assemble_messages(connection, response)
    attempt.check()
    tokens = count_tokens(engine, messages, output_format_of(response.request))
    return plain_ending(attempt, "completed", result={"input_tokens": tokens})


def _hypothetical_turn(attempt: Attempt) -> Response:
    """Return the turn whose prompt is counted. It is not stored."""
    arguments = attempt.job.arguments
    return Response(
        id="",
        account_id=attempt.job.account_id,
        user_id=None,
        job_id=attempt.job.id,
        conversation_id=arguments["conversation_id"],
        previous_id=arguments["previous_id"],
        thread="",
        request=arguments["request"],
        input=arguments["input"],
        created_at=datetime.now(UTC),
    )

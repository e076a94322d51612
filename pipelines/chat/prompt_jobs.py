"""Jobs that count or compact a prompt without running its turn. They need the engine, so its pool runs them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from models.accounts.accounts import Caller
from models.accounts.ownership import Access
from models.accounts.plans import Limits
from models.jobs.attempt_context import Attempt
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.platform.database import Database
from models.platform.ids import new_id
from models.serving.served_models import ServedModels
from models.turns.responses import Response
from pipelines.agents.agent_turns import served_by, with_agent
from pipelines.chat.input_files import find_files
from pipelines.chat.thread import find_thread, resolve_items


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """The input of a job about a prompt, with the fields of a turn: see `pipelines.chat.start_turn.NewTurn`."""

    request: Mapping[str, Any]
    input: Sequence[Mapping[str, Any]]
    conversation_id: str | None = None
    previous_id: str | None = None


def enqueue_prompt_job(
    database: Database,
    caller: Caller,
    kind: str,
    prompt: PromptRequest,
    job_id: str,
    limits: Limits,
    models: ServedModels | None = None,
) -> None:
    """Enqueue a job of this kind about a prompt, in the queue of its model. Announce the job to the queue after this.

    Raises NotFound and InvalidRequest, as `find_thread`, `resolve_items` and `find_files` do, and LimitExceeded.
    """
    with database.transaction() as connection:
        find_thread(connection, Access.own(caller), prompt.conversation_id, prompt.previous_id)
        items = resolve_items(connection, Access.own(caller), new_id("resp"), prompt.input)
        items = find_files(connection, caller, items)
        request = with_agent(connection, caller.account_id, prompt.request, models)
        arguments = {**asdict(prompt), "input": items, "request": request}
        target = served_by(models, request) if request.get("model") else None
        queue = target.queue if target else None
        job = NewJob(kind, caller.account_id, arguments, id=job_id, owner_id=caller.user_id, queue=queue)
        check_unfinished_jobs(connection, caller.account_id, limits, size=job.total_bytes)
        enqueue(connection, job)


def hypothetical_turn(attempt: Attempt) -> Response:
    """Build the turn with the job's prompt. It is not stored."""
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

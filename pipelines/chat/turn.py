"""Run a turn: assemble the prompt, generate, journal, run calls, end.

An answer survives its worker: a new attempt reads the journalled text, passes it to the engine as the beginning of the
answer, and the stream continues with the next sequence number. An engine that can't continue a text begins the answer
again, which an event reports. A call is journalled whole or not at all: one that was not is generated again.

An attempt generates at most once. If the server runs calls of the answer, the job waits for them without a thread, and
the next attempt generates with their outputs (`pipelines.chat.server_calls`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from models.agents.approvals import Approval, cancel_waiting
from models.agents.approvals import insert as insert_approval
from models.jobs.attempt_context import Attempt, Outcome, WaitForChildren
from models.jobs.attempts import Ending
from models.jobs.budgets import Draw, settle_draw
from models.jobs.jobs import NewJob
from models.jobs.usage import GenerationTimes, UsageSource
from models.journal.token_pace import first_token_of
from models.platform.database import Connection
from models.turns import conversations, due_times, response_events, responses
from models.turns.responses import Response, TokenUsage
from pipelines.agents import tree_money
from pipelines.agents.turn_tools import TurnTools
from pipelines.chat import response_objects, server_calls
from pipelines.chat.answer_writer import AnswerWriter
from pipelines.chat.file_texts import FileTexts
from pipelines.chat.generation_span import agent_span
from pipelines.chat.memory_prompt import MemoryRecall
from pipelines.chat.recalled_memories import references
from pipelines.chat.response_types import ItemStatus
from pipelines.chat.service_tiers import served_tier, tier_in_time
from pipelines.chat.step import TurnEnd, generate_step
from pipelines.chat.transcript import (
    Transcript,
    read_transcript,
)
from pipelines.inference.engine import (
    Engine,
)
from pipelines.inference.own_prompts import OwnPrompts
from pipelines.memory.follow_ups import remember_turn_job

#: Seconds within which the generation of a turn of the tier `priority` is to begin.
PRIORITY_SECONDS = 5.0

#: Why an answer is incomplete, by what ended it.
INCOMPLETE_REASONS: Mapping[TurnEnd, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
    "max_tool_calls": "max_tool_calls",
    "max_steps": "max_steps",
    "budget": "budget",
    "deadline": "deadline",
}

#: Returns what a turn may call on the server, for the agent that has taken it over, if one has; or the jobs that ask
#: servers for their tools, where these are not known yet.
LoadTools = Callable[[Connection, Attempt, Response, Mapping[str, Any] | None, int], TurnTools | WaitForChildren]


def run(
    engine: Engine,
    attempt: Attempt,
    recall: MemoryRecall | None = None,
    own_prompts: OwnPrompts | None = None,
    load_tools: LoadTools | None = None,
    priority_seconds: float = PRIORITY_SECONDS,
    file_texts: FileTexts | None = None,
) -> Outcome:
    """Answer a turn, or continue its answer. Raises the reason to stop, PermanentFailure and EngineError.

    A turn of the tier `priority` whose generation begins later than `priority_seconds` has the tier `default`. Without
    `own_prompts` no cached tokens are reported, without `load_tools` the server runs no calls, and without `file_texts`
    the prompt has no files.
    """
    transcript = read_transcript(attempt.history, attempt.tokens)
    with attempt.database.connection() as connection:
        response = responses.read_of_job(connection, attempt.job)
        response = _with_tier(connection, response, transcript, priority_seconds)
        tools = _load(load_tools, connection, attempt, response, transcript)
    while not isinstance(tools, WaitForChildren):
        answer, reason = AnswerWriter(response, attempt.journal, transcript), None
        if transcript.step.usage is None:
            with agent_span(response, transcript):
                answer, reason = generate_step(
                    engine, attempt, response, transcript, tools, recall, own_prompts, file_texts
                )
        if reason is None:
            waits = server_calls.settle(attempt, answer, tools)
            if waits is not None:
                return waits
            reason = server_calls.end_after(answer, tools)
        if reason is not None:
            approvals = server_calls.approvals_of_next_turn(answer, tools)
            return complete_turn(attempt, answer, reason, approvals, endpoint=engine.endpoint)
        handed_off = any(item["id"] in transcript.handoffs for item in answer.call_items)
        transcript.begin_next_step()
        tools = tools.in_later_steps()
        if handed_off:
            with attempt.database.connection() as connection:
                tools = _load(load_tools, connection, attempt, response, transcript)
    return tools


def _with_tier(connection: Connection, response: Response, transcript: Transcript, priority_seconds: float) -> Response:
    """Return a turn with the tier that serves it, which its first generation decides."""
    if served_tier(response.request) != "priority":
        return response
    due_at = due_times.due_at(connection, response)
    return replace(response, served_tier=transcript.tier or tier_in_time(response.request, due_at, priority_seconds))


def _load(
    load_tools: LoadTools | None, connection: Connection, attempt: Attempt, response: Response, transcript: Transcript
) -> TurnTools | WaitForChildren:
    if load_tools is None:
        return TurnTools(response.request)
    return load_tools(connection, attempt, response, transcript.agent, transcript.step.number)


def complete_turn(
    attempt: Attempt,
    answer: AnswerWriter,
    reason: TurnEnd,
    approvals: Sequence[Approval] = (),
    *,
    endpoint: str = "",
) -> Ending:
    """End a turn whose answer is complete or has reached a limit."""
    details = {"reason": INCOMPLETE_REASONS[reason]} if reason in INCOMPLETE_REASONS else None
    status: ItemStatus = "incomplete" if details else "completed"
    events = [*answer.missing_message_events(status), *answer.end_events(status), *answer.open_call_events()]
    response = replace(
        answer.response,
        job_state="completed",
        output=answer.output(status),
        usage=response_objects.usage_object(answer.usage),
        incomplete_details=details,
        completed_at=None if details else datetime.now(UTC),
    )
    end_event_type = f"response.{response.status}"
    return Ending(
        "completed",
        attempt.journal.compose_endings(
            [*events, (end_event_type, response_objects.response_payload(response, attempt.job.arguments))]
        ),
        result={"response_id": response.id, "status": response.status},
        record=_record_results(response, answer, attempt, endpoint, approvals),
        settle=_settlement(attempt, response, answer.usage),
        follow_ups=_follow_ups(response),
        tokens=answer.usage.input_tokens + answer.usage.output_tokens,
        input_tokens=answer.usage.input_tokens,
    )


#: Limits that end a turn as incomplete although its pipeline has not ended it, by the code of the error.
LIMIT_ERRORS: Mapping[str, TurnEnd] = {"deadline_exceeded": "deadline", "budget_exhausted": "budget"}


def end(
    attempt: Attempt,
    state: Literal["cancelled", "failed", "dead"],
    error: Mapping[str, Any] | None,
    endpoint: str = "",
) -> Ending:
    """End a turn that is cancelled, fails or is past its limits. The answer so far is kept and billed once."""
    events = [*attempt.history, *attempt.journal.attempt_events()]
    transcript = read_transcript(events, attempt.tokens + attempt.journal.tokens)
    with attempt.database.connection() as connection:
        response = replace(responses.read_of_job(connection, attempt.job), recalled=references(transcript.recalled))
    if served_tier(response.request) == "priority":
        response = replace(response, served_tier=transcript.tier)
    answer = AnswerWriter(response, attempt.journal, transcript)
    if state == "failed" and error and error["code"] in LIMIT_ERRORS:
        return complete_turn(attempt, answer, LIMIT_ERRORS[error["code"]], endpoint=endpoint)
    usage = answer.usage
    response = replace(
        answer.response,
        job_state=state,
        job_error=error,
        output=answer.output("incomplete"),
        usage=response_objects.usage_object(usage),
    )
    type_ = "sangha:job.cancelled" if state == "cancelled" else "response.failed"
    fields: dict[str, Any] = {"job_id": attempt.job.id} if state == "cancelled" else {}
    end_event = (type_, response_objects.response_payload(response, attempt.job.arguments, **fields))
    return Ending(
        state,
        attempt.journal.compose_endings([*answer.end_events("incomplete"), *answer.open_call_events(), end_event]),
        result={"response_id": response.id, "status": response.status},
        error=error,
        record=_record_results(response, answer, attempt, endpoint),
        settle=_settlement(attempt, response, usage),
        follow_ups=_follow_ups(response),
        tokens=usage.input_tokens + usage.output_tokens,
        input_tokens=usage.input_tokens,
    )


def _settlement(attempt: Attempt, response: Response, usage: TokenUsage) -> Callable[[Connection], None] | None:
    """Return a function that gives back what a turn has drawn from its tree's budget; None for one that has not."""
    arguments = attempt.job.arguments
    if "budget_draw" not in arguments:
        return None
    with attempt.database.connection() as connection:
        money = tree_money.cost(connection, response, usage)
    used = Draw(usage.input_tokens + usage.output_tokens, money, calls=1)
    return lambda ending: settle_draw(ending, arguments, used)


def _record_results(
    response: Response, answer: AnswerWriter, attempt: Attempt, endpoint: str, approvals: Sequence[Approval] = ()
) -> Callable[[Connection], None]:
    """Return a function that writes output, usage and the conversation's items in the transaction that ends the job."""
    usage, segments = answer.usage, answer.segments
    job, times = attempt.job, _generation_times(attempt)

    def record(connection: Connection) -> None:
        responses.finish(connection, response)
        responses.bill(connection, response, usage, UsageSource.of_job(job, endpoint, times), segments)
        if response.conversation_id:
            items = [*response.input, *response.output]
            conversations.add_items(connection, response.conversation_id, items, response_id=response.id)
        if any(item["type"] == "mcp_approval_request" for item in response.output):
            cancel_waiting(connection, response.id)
        for approval in approvals:
            insert_approval(connection, approval)
        response_events.record(connection, response, job)

    return record


def _generation_times(attempt: Attempt) -> GenerationTimes:
    """Return how fast a turn was answered. The first token may be of an earlier attempt, whose events have its time."""
    pace = attempt.journal.pace
    first = first_token_of(attempt.history) if pace.first_token_seconds is None else pace.first_token_seconds
    return GenerationTimes(first, pace.tokens_per_second)


def _follow_ups(response: Response) -> list[NewJob]:
    """Return the jobs to enqueue at the end of a turn."""
    remember_job = remember_turn_job(response)
    return [remember_job] if remember_job else []

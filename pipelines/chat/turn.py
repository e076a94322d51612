"""Run a turn: assemble the prompt, generate, journal, end.

An answer survives its worker: a new attempt reads the journalled text, passes it to the engine as the beginning of the
answer, and the stream continues with the next sequence number. An engine that can't continue a text begins the answer
again, which an event reports. A call is journalled whole or not at all: one that was not is generated again.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from models.accounts.ownership import Access
from models.jobs.attempt_context import Attempt
from models.jobs.attempts import Ending
from models.jobs.jobs import Job, NewJob
from models.jobs.usage import UsageSource
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.turns import conversations, responses
from models.turns.responses import Response, TokenUsage
from pipelines.chat import response_objects
from pipelines.chat.answer_writer import AnswerWriter, whole_item_events
from pipelines.chat.context_management import compaction_of
from pipelines.chat.memory_prompt import MemoryRecall, add_memories, recall_memories
from pipelines.chat.prompt import Prompt, fit_prompt, messages_of, sampling_of, thread_items
from pipelines.chat.recalled_memories import recalled_before, references
from pipelines.chat.response_objects import CompactionItem, ItemStatus
from pipelines.chat.transcript import (
    ANSWER_RESTARTED,
    ENGINE_STARTED,
    MEMORIES_RECALLED,
    Transcript,
    read_transcript,
    restart,
)
from pipelines.inference.engine import (
    AnswerEnd,
    Engine,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    ReasoningToken,
    Token,
)
from pipelines.inference.own_prompts import OwnPrompts
from pipelines.memory.follow_ups import remember_turn_job

#: Why an answer is incomplete, by what ended it.
INCOMPLETE_REASONS: Mapping[AnswerEnd, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


def run(
    engine: Engine, attempt: Attempt, recall: MemoryRecall | None = None, own_prompts: OwnPrompts | None = None
) -> Ending:
    """Answer a turn, or continue its answer. Raises the reason to stop, PermanentFailure and EngineError.

    Without `own_prompts` no cached tokens are reported.
    """
    transcript = read_transcript(attempt.history, attempt.tokens)
    with attempt.database.connection() as connection:
        response = load_response(connection, attempt.job)
        items = thread_items(connection, response)
        recalled = recalled_before(connection, response, transcript.recalled)
    compaction = None if ENGINE_STARTED in transcript.event_types else compaction_of(engine, response, items)
    if item := transcript.compaction or compaction:
        items = [item]
    messages = messages_of(engine, response.request, items)
    prompt = fit_prompt(engine, messages, response.request)
    if recall is not None and not {MEMORIES_RECALLED, ENGINE_STARTED} & transcript.event_types:
        recalled = recall_memories(recall, attempt.database, response, messages, prompt, engine.context)
    if recalled:
        prompt, recalled = add_memories(engine, response, messages, prompt, recalled)
        keeps_texts = recall is not None and recall.keeps_texts()
        response = replace(response, recalled=recalled if keeps_texts else references(recalled))
    if recall is not None and recalled and MEMORIES_RECALLED not in transcript.event_types:
        recall.count_used([memory["id"] for memory in recalled])
    answer = begin_answer(engine, attempt, response, transcript, prompt, compaction)
    reason = generate(engine, attempt, answer, prompt, own_prompts)
    attempt.check()
    return complete_turn(attempt, answer, reason)


def load_response(connection: Connection, job: Job) -> Response:
    """Load the job's response. Raises PermanentFailure when it has been deleted."""
    response = responses.read(connection, job.arguments["response_id"], Access.account(job.account_id))
    if response is None:
        raise PermanentFailure("The response was deleted", code="deleted")
    return response


def begin_answer(
    engine: Engine,
    attempt: Attempt,
    response: Response,
    transcript: Transcript,
    prompt: Prompt,
    compaction: CompactionItem | None,
) -> AnswerWriter:
    """Journal what precedes the first token, unless an earlier attempt has, and take over its text and calls.

    Where tools may be called, or the model may reason first, the message begins only with its first text.
    """
    journal, item_id = attempt.journal, response_objects.output_message_id(response)
    started = {"model": engine.name, "prompt_tokens": prompt.tokens, "dropped_messages": prompt.dropped}
    if "response.in_progress" not in transcript.event_types:
        # For clients that receive OpenAI's types only.
        sangha = {**started, "recalled": [memory["id"] for memory in response.recalled]}
        payload = response_objects.response_payload(
            response, attempt.job.arguments, status="in_progress", sangha=sangha
        )
        journal.write("response.in_progress", payload)
    if compaction is not None and transcript.compaction is None:
        transcript.compaction = compaction
        journal.write_atomically(whole_item_events(compaction), 0)
    if response.recalled and MEMORIES_RECALLED not in transcript.event_types:
        journal.write(MEMORIES_RECALLED, {"item_id": item_id, "memories": response.recalled})
    if ENGINE_STARTED not in transcript.event_types:
        transcript.prompt_tokens = prompt.tokens
        journal.write(ENGINE_STARTED, {"item_id": item_id, **started})
    if (transcript.text or transcript.reasoning) and not (engine.continues or transcript.calls):
        journal.write(ANSWER_RESTARTED, {"item_id": item_id, "discarded_tokens": transcript.tokens})
        restart(transcript, transcript.tokens)
    answer = AnswerWriter(response, journal, transcript)
    if not (prompt.output_format.callable_tools or engine.reasons):
        answer.begin_message()
    return answer


def generate(
    engine: Engine, attempt: Attempt, answer: AnswerWriter, prompt: Prompt, own_prompts: OwnPrompts | None
) -> AnswerEnd:
    """Journal tokens and calls until the engine ends or the attempt is stopped."""
    tokens_left = prompt.max_output_tokens - answer.output_tokens
    if tokens_left <= 0:
        return "length"
    if answer.call_items and not engine.continues:
        return "stop"  # keep the journalled calls: the client may be executing them
    finish: Finish | None = None
    for output in engine.generate(
        prompt.messages,
        prefix=answer.text,
        sampling=sampling_of(answer.response.request, tokens_left, answer.output_tokens),
        cancelled=attempt.should_stop,
        output_format=prompt.output_format,
        reasoning=answer.reasoning.text,
        calls=answer.tool_calls,
        cache_owner=answer.response.account_id,
    ):
        if isinstance(output, Finish):
            finish = output
        else:
            _write(answer, output)
    if finish is None or finish.reason == "cancelled":
        return "stop"  # the attempt raises the reason
    answer.count_hidden_reasoning(finish.hidden_reasoning)
    answer.prompt_tokens = finish.prompt_tokens or answer.prompt_tokens  # the engine's count replaces an estimate
    if own_prompts is not None:
        thread, own = answer.response.thread, (prompt.messages, prompt.output_format)
        answer.cached_tokens = own_prompts.cached_tokens(thread, *own, finish)
        own_prompts.record(thread, *own, Message("assistant", answer.text, tuple(answer.tool_calls)), finish)
    return finish.reason


def _write(answer: AnswerWriter, output: EngineOutput) -> None:
    if isinstance(output, ReasoningToken):
        answer.write_reasoning(output)
    elif isinstance(output, GeneratedCall):
        answer.write_call(output)
    elif isinstance(output, Token):
        answer.write_text(output)


def complete_turn(attempt: Attempt, answer: AnswerWriter, reason: AnswerEnd) -> Ending:
    """End a turn whose answer is complete or has reached its limit."""
    details = {"reason": INCOMPLETE_REASONS[reason]} if reason in INCOMPLETE_REASONS else None
    status: ItemStatus = "incomplete" if details else "completed"
    events = [*answer.missing_message_events(status), *answer.end_events(status)]
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
        record=_record_results(response, answer.usage, attempt.job),
        follow_ups=_follow_ups(response),
        tokens=answer.usage.input_tokens + answer.usage.output_tokens,
    )


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """End a turn that is cancelled or fails. The answer so far is kept and billed once."""
    events = [*attempt.history, *attempt.journal.attempt_events()]
    transcript = read_transcript(events, attempt.tokens + attempt.journal.tokens)
    with attempt.database.connection() as connection:
        response = replace(load_response(connection, attempt.job), recalled=references(transcript.recalled))
    answer = AnswerWriter(response, attempt.journal, transcript)
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
        attempt.journal.compose_endings([*answer.end_events("incomplete"), end_event]),
        result={"response_id": response.id, "status": response.status},
        error=error,
        record=_record_results(response, usage, attempt.job),
        follow_ups=_follow_ups(response),
        tokens=usage.input_tokens + usage.output_tokens,
    )


def _record_results(response: Response, usage: TokenUsage, job: Job) -> Any:
    """Return a function that writes output, usage and the conversation's items in the transaction that ends the job."""

    def record(connection: Connection) -> None:
        responses.finish(connection, response)
        responses.bill(connection, response, usage, UsageSource.of_job(job))
        if response.conversation_id:
            items = [*response.input, *response.output]
            conversations.add_items(connection, response.conversation_id, items, response_id=response.id)

    return record


def _follow_ups(response: Response) -> list[NewJob]:
    """Return the jobs to enqueue at the end of a turn."""
    remember_job = remember_turn_job(response)
    return [remember_job] if remember_job else []

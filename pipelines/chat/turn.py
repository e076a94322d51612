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

from models.accounts.ownership import Access
from models.agents.approvals import Approval, cancel_waiting
from models.agents.approvals import insert as insert_approval
from models.jobs.attempt_context import Attempt, Outcome, WaitForChildren
from models.jobs.attempts import Ending
from models.jobs.budgets import Draw, settle_draw
from models.jobs.jobs import Job, NewJob
from models.jobs.usage import UsageSource
from models.journal.writer import Journal
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.turns import conversations, responses
from models.turns.responses import Response, TokenUsage
from pipelines.agents import tree_money
from pipelines.agents.turn_tools import TurnTools
from pipelines.chat import response_objects, server_calls
from pipelines.chat.answer_writer import AnswerWriter, whole_item_events
from pipelines.chat.client_tools import ClientTool, client_tools
from pipelines.chat.context_management import compaction_of
from pipelines.chat.mcp_items import new_listings
from pipelines.chat.memory_prompt import MemoryRecall, add_memories, recall_memories
from pipelines.chat.prompt import Prompt, fit_prompt, messages_of, sampling_of, thread_items
from pipelines.chat.recalled_memories import recalled_before, references
from pipelines.chat.response_objects import ItemStatus
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
    Tool,
)
from pipelines.inference.own_prompts import OwnPrompts
from pipelines.memory.follow_ups import remember_turn_job

#: Why a turn ended: as its generation did, or at a limit of its calls.
TurnEnd = AnswerEnd | server_calls.LimitReached

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
) -> Outcome:
    """Answer a turn, or continue its answer. Raises the reason to stop, PermanentFailure and EngineError.

    Without `own_prompts` no cached tokens are reported, and without `load_tools` the server runs no calls.
    """
    transcript = read_transcript(attempt.history, attempt.tokens)
    with attempt.database.connection() as connection:
        response = load_response(connection, attempt.job)
        tools = _load(load_tools, connection, attempt, response, transcript)
    while not isinstance(tools, WaitForChildren):
        answer, reason = AnswerWriter(response, attempt.journal, transcript), None
        if transcript.step.usage is None:
            answer, reason = _generate_step(engine, attempt, response, transcript, tools, recall, own_prompts)
        if reason is None:
            waits = server_calls.settle(attempt, answer, tools)
            if waits is not None:
                return waits
            reason = server_calls.end_after(answer, tools)
        if reason is not None:
            approvals = server_calls.approvals_of_next_turn(answer, tools)
            return complete_turn(attempt, answer, reason, approvals)
        handed_off = any(item["id"] in transcript.handoffs for item in answer.call_items)
        transcript.begin_next_step()
        tools = tools.in_later_steps()
        if handed_off:
            with attempt.database.connection() as connection:
                tools = _load(load_tools, connection, attempt, response, transcript)
    return tools


def _load(
    load_tools: LoadTools | None, connection: Connection, attempt: Attempt, response: Response, transcript: Transcript
) -> TurnTools | WaitForChildren:
    if load_tools is None:
        return TurnTools(response.request)
    return load_tools(connection, attempt, response, transcript.agent, transcript.step.number)


def _generate_step(
    engine: Engine,
    attempt: Attempt,
    response: Response,
    transcript: Transcript,
    tools: TurnTools,
    recall: MemoryRecall | None,
    own_prompts: OwnPrompts | None,
) -> tuple[AnswerWriter, TurnEnd | None]:
    """Generate a step. Returns why the turn ends, or None if the server runs calls of the step."""
    effective = replace(response, request=dict(tools.request))
    with attempt.database.connection() as connection:
        items = thread_items(connection, response)
        recalled = recalled_before(connection, response, transcript.recalled)
    if server_calls.begin_approved(answer := AnswerWriter(response, attempt.journal, transcript), tools):
        return answer, None
    compaction = None if ENGINE_STARTED in transcript.event_types else compaction_of(engine, effective, items)
    if item := transcript.compaction or compaction:
        items = [item]
    messages = messages_of(engine, tools.request, [*items, *transcript.answered_items])
    prompt = fit_prompt(engine, messages, tools.request)
    if recall is not None and not {MEMORIES_RECALLED, ENGINE_STARTED} & transcript.event_types:
        recalled = recall_memories(recall, attempt.database, effective, messages, prompt, engine.context)
    if recalled:
        prompt, recalled = add_memories(engine, effective, messages, prompt, recalled)
        keeps_texts = recall is not None and recall.keeps_texts()
        response = replace(response, recalled=recalled if keeps_texts else references(recalled))
    if recall is not None and recalled and MEMORIES_RECALLED not in transcript.event_types:
        recall.count_used([memory["id"] for memory in recalled])
    leading = [*([compaction] if compaction else []), *new_listings(response, tools, items)]
    answer = begin_answer(engine, attempt, response, transcript, prompt, leading)
    reason = generate(engine, attempt, answer, prompt, own_prompts, tools)
    attempt.check()
    if reason == "stop" and server_calls.has_server_calls(answer):
        answer.end_generation()
        return answer, None
    return answer, reason


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
    leading: Sequence[Mapping[str, Any]] = (),
) -> AnswerWriter:
    """Journal what precedes the first token of a step, unless an earlier attempt has, and take over its text and calls.

    Where tools may be called, or the model may reason first, the message begins only with its first text.

    leading  items that precede the answer
    """
    journal, step = attempt.journal, transcript.step
    item_id = response_objects.output_message_id(response, step.number)
    started = {"model": engine.name, "prompt_tokens": prompt.tokens, "dropped_messages": prompt.dropped}
    if "response.in_progress" not in transcript.event_types:
        # For clients that receive OpenAI's types only.
        sangha = {**started, "recalled": [memory["id"] for memory in response.recalled]}
        payload = response_objects.response_payload(
            response, attempt.job.arguments, status="in_progress", sangha=sangha
        )
        journal.write("response.in_progress", payload)
        transcript.event_types.add("response.in_progress")
    for item in leading:
        _write_leading_item(journal, transcript, item)
    if response.recalled and MEMORIES_RECALLED not in transcript.event_types:
        journal.write(MEMORIES_RECALLED, {"item_id": item_id, "memories": response.recalled})
        transcript.event_types.add(MEMORIES_RECALLED)
        transcript.recalled = response.recalled
    if not step.begun:
        step.prompt_tokens, step.begun = prompt.tokens, True
        number = {"step": step.number} if step.number else {}
        journal.write(ENGINE_STARTED, {"item_id": item_id, **started, **number})
        transcript.event_types.add(ENGINE_STARTED)
    if (step.text or step.reasoning) and not (engine.continues or step.calls):
        since = {"since": step.since} if step.number else {}
        journal.write(ANSWER_RESTARTED, {"item_id": item_id, "discarded_tokens": step.tokens, **since})
        restart(step, step.tokens)
    answer = AnswerWriter(response, journal, transcript)
    if not (prompt.output_format.callable_tools or engine.reasons):
        answer.begin_message()
    return answer


def _write_leading_item(journal: Journal, transcript: Transcript, item: Mapping[str, Any]) -> None:
    if all(earlier["id"] != item["id"] for earlier in transcript.items):
        journal.write_atomically(whole_item_events(item, len(transcript.items)), 0)
        transcript.items.append(item)


def generate(
    engine: Engine,
    attempt: Attempt,
    answer: AnswerWriter,
    prompt: Prompt,
    own_prompts: OwnPrompts | None,
    tools: TurnTools,
) -> TurnEnd:
    """Journal tokens and calls until the engine ends or the attempt is stopped."""
    most, limit = _most_output(answer, prompt, tools)
    tokens_left = most - answer.output_tokens
    if tokens_left <= 0:
        return limit
    if answer.call_items and not engine.continues:
        return "stop"  # keep the journalled calls: the client may be executing them
    finish: Finish | None = None
    for output in engine.generate(
        prompt.messages,
        prefix=answer.text,
        sampling=sampling_of(tools.request, tokens_left, answer.output_tokens),
        cancelled=attempt.should_stop,
        output_format=prompt.output_format,
        reasoning=answer.reasoning.text,
        calls=answer.tool_calls,
        cache_owner=answer.response.account_id,
    ):
        if isinstance(output, Finish):
            finish = output
        else:
            _write(answer, output, tools)
    if finish is None or finish.reason == "cancelled":
        return "stop"  # the attempt raises the reason
    answer.count_hidden_reasoning(finish.hidden_reasoning)
    answer.prompt_tokens = finish.prompt_tokens or answer.prompt_tokens  # the engine's count replaces an estimate
    if own_prompts is not None:
        thread, own = answer.response.thread, (prompt.messages, prompt.output_format)
        answer.cached_tokens = own_prompts.cached_tokens(thread, *own, finish)
        own_prompts.record(thread, *own, Message("assistant", answer.text, tuple(answer.tool_calls)), finish)
    return limit if finish.reason == "length" else finish.reason


def _most_output(answer: AnswerWriter, prompt: Prompt, tools: TurnTools) -> tuple[int, TurnEnd]:
    """Return the most tokens that the step may generate, and why the turn ends if it generates them."""
    most, limit = prompt.max_output_tokens, answer.response.request["max_output_tokens"]
    if limit is not None:
        most = min(most, limit - answer.transcript.usage.output_tokens)
    if tools.max_tokens is None:
        return most, "length"
    usage, counted = answer.transcript.usage, answer.transcript.counted if tools.is_root else 0
    affordable = tools.max_tokens - (usage.input_tokens + usage.output_tokens - counted) - prompt.tokens
    return (affordable, "budget") if affordable < most else (most, "length")


def _write(answer: AnswerWriter, output: EngineOutput, tools: TurnTools) -> None:
    if isinstance(output, ReasoningToken):
        answer.write_reasoning(output)
    elif isinstance(output, GeneratedCall):
        _write_call(answer, output, tools)
    elif isinstance(output, Token):
        answer.write_text(output)


def _write_call(answer: AnswerWriter, call: GeneratedCall, tools: TurnTools) -> None:
    """Journal a call of a tool that the server or the caller runs; a name that no tool has is the caller's."""
    if (tool := tools.server_tools.get(call.name)) is not None:
        server_calls.begin(answer, tools, tool, call)
        return
    offered = client_tools(answer.response.request.get("tools") or [])
    unknown = ClientTool(Tool(call.name, "", {}), "function", call.name)
    answer.write_call(next((tool for tool in offered if tool.function.name == call.name), unknown), call)


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
        record=_record_results(response, answer.usage, attempt.job, endpoint, approvals),
        settle=_settlement(attempt, response, answer.usage),
        follow_ups=_follow_ups(response),
        tokens=answer.usage.input_tokens + answer.usage.output_tokens,
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
        response = replace(load_response(connection, attempt.job), recalled=references(transcript.recalled))
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
        record=_record_results(response, usage, attempt.job, endpoint),
        settle=_settlement(attempt, response, usage),
        follow_ups=_follow_ups(response),
        tokens=usage.input_tokens + usage.output_tokens,
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
    response: Response, usage: TokenUsage, job: Job, endpoint: str, approvals: Sequence[Approval] = ()
) -> Callable[[Connection], None]:
    """Return a function that writes output, usage and the conversation's items in the transaction that ends the job."""

    def record(connection: Connection) -> None:
        responses.finish(connection, response)
        responses.bill(connection, response, usage, UsageSource.of_job(job, endpoint))
        if response.conversation_id:
            items = [*response.input, *response.output]
            conversations.add_items(connection, response.conversation_id, items, response_id=response.id)
        if any(item["type"] == "mcp_approval_request" for item in response.output):
            cancel_waiting(connection, response.id)
        for approval in approvals:
            insert_approval(connection, approval)

    return record


def _follow_ups(response: Response) -> list[NewJob]:
    """Return the jobs to enqueue at the end of a turn."""
    remember_job = remember_turn_job(response)
    return [remember_job] if remember_job else []

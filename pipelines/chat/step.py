"""Generate one step of a turn: assemble its prompt, and journal what the engine generates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.jobs.attempt_context import Attempt
from models.jobs.route_costs import ROUTE
from models.jobs.usage import Segment
from models.journal.writer import Journal
from models.turns.responses import Response
from pipelines.agents.turn_tools import TurnTools
from pipelines.chat import response_objects, server_calls
from pipelines.chat.answer_writer import AnswerWriter, whole_item_events
from pipelines.chat.client_tools import ClientTool, client_tools
from pipelines.chat.context_management import compaction_of
from pipelines.chat.file_texts import FileTexts
from pipelines.chat.generation_span import GenerationSpan
from pipelines.chat.mcp_items import new_listings
from pipelines.chat.memory_prompt import MemoryRecall, add_memories, recall_memories
from pipelines.chat.prompt import Prompt, fit_prompt, fit_with_outputs, messages_of, sampling_of, thread_items
from pipelines.chat.reasoning_writer import NewEvent
from pipelines.chat.recalled_memories import recalled_before, references
from pipelines.chat.token_meter import TokenMeter
from pipelines.chat.transcript import (
    ANSWER_RESTARTED,
    ENGINE_CHANGED,
    ENGINE_STARTED,
    MEMORIES_RECALLED,
    PROMPT_READ,
    Step,
    Transcript,
    restart,
)
from pipelines.inference.engine import (
    AnswerEnd,
    ContinuesSome,
    Engine,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    PromptRead,
    ReasoningToken,
    Token,
    Tool,
)
from pipelines.inference.own_prompts import OwnPrompts

#: Why a turn ended: as its generation did, or at a limit of its calls.
TurnEnd = AnswerEnd | server_calls.LimitReached


def generate_step(
    engine: Engine,
    attempt: Attempt,
    response: Response,
    transcript: Transcript,
    tools: TurnTools,
    recall: MemoryRecall | None,
    own_prompts: OwnPrompts | None,
    file_texts: FileTexts | None,
) -> tuple[AnswerWriter, TurnEnd | None]:
    """Generate a step. Returns why the turn ends, or None if the server runs calls of the step."""
    effective = replace(response, request=dict(tools.request))
    with attempt.database.connection() as connection:
        items = thread_items(connection, response)
        recalled = recalled_before(connection, response, transcript.recalled)
    if server_calls.begin_approved(answer := AnswerWriter(response, attempt.journal, transcript), tools):
        return answer, None
    if file_texts is not None:
        items = list(file_texts.expand(attempt, items, len(response.input)))
    compaction = None if ENGINE_STARTED in transcript.event_types else compaction_of(engine, effective, items)
    if item := transcript.compaction or compaction:
        items = [item]
    messages = messages_of(engine, tools.request, [*items, *transcript.answered_items])
    fit = fit_with_outputs if transcript.answered_items else fit_prompt
    prompt = fit(engine, messages, tools.request)
    if recall is not None and not {MEMORIES_RECALLED, ENGINE_STARTED} & transcript.event_types:
        recalled = recall_memories(recall, attempt.database, effective, messages, prompt, engine.context)
    if recalled:
        prompt, recalled = add_memories(engine, effective, messages, prompt, recalled)
        keeps_texts = recall is not None and recall.keeps_texts()
        response = replace(response, recalled=recalled if keeps_texts else references(recalled))
    if recall is not None and recalled and MEMORIES_RECALLED not in transcript.event_types:
        recall.count_used([memory["id"] for memory in recalled])
    leading = [*([compaction] if compaction else []), *new_listings(response, tools, items)]
    most, limit = _most_output(AnswerWriter(response, attempt.journal, transcript), prompt, tools)
    if limit == "budget" and most <= 0 and not transcript.step.begun:
        return begin_answer(engine, attempt, response, transcript, prompt, leading, generates=False), limit
    answer = begin_answer(engine, attempt, response, transcript, prompt, leading)
    reason = generate(engine, attempt, answer, prompt, own_prompts, tools)
    attempt.check()
    if reason == "stop" and server_calls.has_server_calls(answer):
        answer.end_generation()
        return answer, None
    return answer, reason


def begin_answer(
    engine: Engine,
    attempt: Attempt,
    response: Response,
    transcript: Transcript,
    prompt: Prompt,
    leading: Sequence[Mapping[str, Any]] = (),
    *,
    generates: bool = True,
) -> AnswerWriter:
    """Journal what precedes the first token of a step, unless an earlier attempt has, and take over its text and calls.

    Where tools may be called, or the model may reason first, the message begins only with its first text.

    leading    items that precede the answer
    generates  whether the engine gets the prompt, which is then billed
    """
    journal, step = attempt.journal, transcript.step
    item_id = response_objects.output_message_id(response, step.number)
    names = {"model": engine.name, "endpoint": engine.endpoint or None}
    route = attempt.job.arguments.get(ROUTE)
    names |= {"reason": route.get("reason")} if route else {}
    started = {**names, "prompt_tokens": prompt.tokens, "dropped_messages": prompt.dropped}
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
    if not generates:
        return AnswerWriter(response, journal, transcript)
    if not step.begun:
        step.prompt_tokens, step.begun, step.engine = prompt.tokens, True, _segment(engine)
        number = {"step": step.number} if step.number else {}
        journal.write(ENGINE_STARTED, {"item_id": item_id, **started, **number})
        transcript.event_types.add(ENGINE_STARTED)
    if events := _take_over(attempt, step, engine, prompt, item_id):
        journal.write_atomically(events, 0)
    answer = AnswerWriter(response, journal, transcript)
    if not (prompt.output_format.callable_tools or engine.reasons):
        answer.begin_message()
    return answer


def continues(engine: Engine, prompt: Prompt, text: str, reasoning: str) -> bool:
    """Return whether the engine continues an answer that begins so. Some endpoints continue only plain texts."""
    if isinstance(engine, ContinuesSome):
        return engine.can_continue(prompt.output_format, text, reasoning)
    return engine.continues


def _take_over(attempt: Attempt, step: Step, engine: Engine, prompt: Prompt, item_id: str) -> list[NewEvent]:
    """Continue the answer of an earlier attempt, or begin it again. Returns the events that say so: none if neither.

    An engine that cannot continue keeps journalled calls, and generates nothing.
    """
    events: list[NewEvent] = []
    if step.calls and not engine.continues:
        return events
    if (step.text or step.reasoning) and not (step.calls or continues(engine, prompt, step.text, step.reasoning)):
        since = {"since": step.since} if step.number else {}
        events.append((ANSWER_RESTARTED, {"item_id": item_id, "discarded_tokens": step.tokens, **since}))
        restart(step, step.tokens)
    before, now = step.engine, _segment(engine)
    if before is None or before == replace(now, endpoint=None):  # as an earlier version has journalled it
        step.engine = now
    elif before != now:
        events.append((ENGINE_CHANGED, {"item_id": item_id, **_change(attempt, before, now, step.tokens, prompt)}))
        step.change_engine(now, prompt.tokens)
    return events


def _segment(engine: Engine) -> Segment:
    return Segment(engine.name, engine.endpoint)


def _change(attempt: Attempt, before: Segment, now: Segment, tokens: int, prompt: Prompt) -> Mapping[str, Any]:
    """Return the fields of the event that another engine continues a step, of which it has these tokens."""
    return {
        "model": now.model,
        "endpoint": now.endpoint or None,
        "from_model": before.model,
        "from_endpoint": before.endpoint or None,
        "reason": (attempt.job.arguments.get("route") or {}).get("reason"),
        "tokens": tokens,
        "prompt_tokens": prompt.tokens,
    }


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
    cached = CachedTokens(attempt.journal, answer, prompt, own_prompts)
    finish: Finish | None = None
    attempt.model = engine.name
    meter = TokenMeter(engine.name, attempt.journal, prompt.tokens)
    with GenerationSpan(engine, answer.response, prompt, tokens_left) as span:
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
            elif isinstance(output, PromptRead):
                cached.prompt_read = output
            else:
                _write(answer, output, tools)
                meter.count()
                cached.journal_once()
                span.count()
        span.finish(finish, answer.text)
    meter.flush()
    if finish is None or finish.reason == "cancelled":
        return "stop"  # the attempt raises the reason
    answer.count_hidden_reasoning(finish.hidden_reasoning)
    answer.count_prompt(finish.prompt_tokens)
    if own_prompts is not None:
        thread, own = answer.response.thread, (prompt.messages, prompt.output_format)
        answer.count_cached(cached.count(own_prompts, finish))
        own_prompts.record(thread, *own, Message("assistant", answer.text, tuple(answer.tool_calls)), finish)
    return limit if finish.reason == "length" else finish.reason


class CachedTokens:
    """The cached tokens of a generation: counted once, and journalled where the engine knows them when it begins.

    prompt_read  what the engine has read; None before, and of an engine that knows it only in the end
    """

    def __init__(self, journal: Journal, answer: AnswerWriter, prompt: Prompt, own_prompts: OwnPrompts | None) -> None:
        self._journal, self._answer, self._prompt, self._own_prompts = journal, answer, prompt, own_prompts
        self._count: int | None = None
        self.prompt_read: PromptRead | None = None

    def journal_once(self) -> None:
        """Journal them after the first output, which does not wait for the count."""
        if self.prompt_read is None or self._own_prompts is None:
            return
        read, self.prompt_read = self.prompt_read, None
        item_id = response_objects.output_message_id(self._answer.response, self._answer.transcript.step.number)
        tokens = {"prompt_tokens": read.prompt_tokens, "cached_tokens": self.count(self._own_prompts, read)}
        self._journal.write(PROMPT_READ, {"item_id": item_id, **tokens})

    def count(self, own_prompts: OwnPrompts, read: PromptRead | Finish) -> int:
        """Return how many cached tokens may be reported."""
        if self._count is None:
            thread, prompt = self._answer.response.thread, self._prompt
            self._count = own_prompts.cached_tokens(thread, prompt.messages, prompt.output_format, read)
        return self._count


def _most_output(answer: AnswerWriter, prompt: Prompt, tools: TurnTools) -> tuple[int, TurnEnd]:
    """Return the most tokens that the step may generate, and why the turn ends if it generates them."""
    most, limit = prompt.max_output_tokens, tools.request["max_output_tokens"]
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

"""Write an answer's events to the journal.

The items of each step are in order: the reasoning, if the model reasons, the message, if there is text, then the
calls. Text is journalled as it is generated; the events of a call are journalled in one step once it is complete, so
that a crash leaves no part of one. An item whose output the server adds later is journalled without it first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from models.jobs.usage import Segment, merge_segments
from models.journal.writer import Journal
from models.turns.responses import Response, TokenUsage
from pipelines.chat import response_objects
from pipelines.chat.call_items import GENERATED_CALLS, call_events, call_item, in_progress_item, tool_call
from pipelines.chat.client_tools import ClientTool
from pipelines.chat.logprobs import logprob_object
from pipelines.chat.reasoning_writer import NewEvent, ReasoningWriter
from pipelines.chat.response_types import ItemStatus
from pipelines.chat.transcript import ITEM_ADDED, ITEM_DONE, STEP_GENERATED, TEXT_DELTA, Transcript, add_usage
from pipelines.inference.engine import GeneratedCall, ReasoningToken, Token, ToolCall


class AnswerWriter:
    """Journals an answer, continuing one that earlier attempts began.

    transcript  what the journal has of it; the step and its items are those of the writer
    item_id     the id of the step's message
    call_items  the items of the step's calls, and of its requests for approval
    reasoning   the step's reasoning
    """

    def __init__(self, response: Response, journal: Journal, transcript: Transcript) -> None:
        step = transcript.step
        self.response = response
        self.transcript = transcript
        self.item_id = response_objects.output_message_id(response, step.number)
        self.call_items = step.calls
        self.prompt_tokens = step.prompt_tokens
        self.output_tokens = step.tokens
        self.cached_tokens = self._hidden_reasoning = 0
        self.reasoning = ReasoningWriter(response, journal, step, len(transcript.items))
        self._journal = journal
        self._message = step.message
        self._pieces = [step.text]
        self._logprobs = list(step.logprobs)
        self._delta_fields: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The step's text so far."""
        return "".join(self._pieces)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The step's calls so far, for the engine."""
        return [tool_call(item) for item in self.call_items if item["type"] in GENERATED_CALLS]

    @property
    def step_usage(self) -> TokenUsage:
        """The tokens of the step."""
        if self.transcript.step.usage is not None:
            return self.transcript.step.usage
        reasoning_tokens = self.reasoning.tokens + self._hidden_reasoning
        return TokenUsage(self.prompt_tokens, self.cached_tokens, self.output_tokens, reasoning_tokens)

    @property
    def usage(self) -> TokenUsage:
        """The tokens that are billed, which are those in the journal."""
        return add_usage(self.transcript.usage, self.step_usage)

    @property
    def segments(self) -> list[Segment]:
        """These tokens by the engine that is paid for them."""
        step = self.transcript.step
        return merge_segments([*self.transcript.segments, *step.bill_by_engine(self.step_usage)])

    def count_prompt(self, prompt_tokens: int) -> None:
        """Replace the estimate of the prompt's tokens by the engine's count, if it is the one that began the answer."""
        if not self.transcript.step.segments:
            self.prompt_tokens = prompt_tokens or self.prompt_tokens

    def count_cached(self, cached_tokens: int) -> None:
        """Count those tokens of the prompt that the engine did not have to read, if it began the answer."""
        if not self.transcript.step.segments:
            self.cached_tokens = cached_tokens

    @property
    def has_message(self) -> bool:
        """Whether the message has begun."""
        return self._message != "none"

    def begin_message(self) -> None:
        """Journal the end of the reasoning and the beginning of the message, unless it is journalled already."""
        if self._message == "none":
            self._journal.write_atomically([*self.reasoning.end("completed"), *self._message_start_events()], 0)
            self._message = "in_progress"

    def write_reasoning(self, token: ReasoningToken) -> None:
        """Journal a piece of reasoning."""
        self.reasoning.write(token)
        self.output_tokens += token.count

    def count_hidden_reasoning(self, tokens: int) -> None:
        """Count as reasoning those of the journalled tokens whose text the endpoint does not return."""
        self._hidden_reasoning += tokens

    def write_text(self, token: Token) -> None:
        """Journal a piece of text."""
        if self._message == "none":
            self.begin_message()
        if self._delta_fields is None:
            self._delta_fields = {**self._text_position, "logprobs": []}
        text = token.text.replace("\0", "\ufffd")  # Postgres cannot store it
        logprobs = [logprob_object(entry) for entry in token.logprobs]
        self._pieces.append(text)
        self._logprobs += logprobs
        self.output_tokens += token.count
        self._journal.write_text(TEXT_DELTA, self._delta_fields, text, token.count, logprobs)

    def write_call(self, tool: ClientTool, call: GeneratedCall) -> None:
        """Journal a call that the caller runs, after the end of the reasoning and the message."""
        self.add_item(call_item(self.call_suffix, tool, call), call.count)

    @property
    def call_suffix(self) -> str:
        """The part of a new call's ids that no other call of the response has: the same for every attempt."""
        return f"{response_objects.id_suffix(self.response, self.transcript.step.number)}_{len(self.call_items)}"

    def add_item(self, item: Mapping[str, Any], tokens: int = 0, *others: NewEvent) -> None:
        """Journal a call, or a request for approval, and what belongs to it, in one step."""
        index = {"output_index": self._call_index(len(self.call_items))}
        self._journal.write_atomically([*self.end_events("completed"), *item_events(item, index), *others], tokens)
        self._message = "none" if self._message == "none" else "completed"
        self.call_items.append(item)
        self.output_tokens += tokens
        if is_done(item):
            self.transcript.step.done[index["output_index"]] = item

    def complete_item(self, item: Mapping[str, Any], *others: NewEvent) -> None:
        """Journal the output of a call that the server has run."""
        number = next(number for number, each in enumerate(self.call_items) if each["id"] == item["id"])
        index = {"output_index": self._call_index(number)}
        self._journal.write_atomically([*output_events(item, index), *others], 0)
        self.call_items[number] = item
        self.transcript.step.done[index["output_index"]] = item

    def write_events(self, *events: NewEvent) -> None:
        """Journal events that belong together."""
        self._journal.write_atomically(list(events), 0)

    def end_generation(self) -> None:
        """Journal that the step is generated, of which the server runs calls."""
        usage = self.step_usage
        self._journal.write_atomically(
            [*self.end_events("completed"),
             (STEP_GENERATED, {"step": self.transcript.step.number, "usage": asdict(usage)})], 0
        )  # fmt: skip
        self.transcript.step.usage = usage

    def _call_index(self, number: int) -> int:
        return self._message_index + self.has_message + number

    def output(self, status: ItemStatus) -> list[Mapping[str, Any]]:
        """Return the response's items. One that is not complete gets this status."""
        reasoning = [self.reasoning.item(status)] if self.reasoning.has_begun else []
        message = [self._message_item("completed" if self._message == "completed" else status)]
        calls = [item if is_done(item) else {**item, "status": "incomplete"} for item in self.call_items]
        return [*self.transcript.items, *reasoning, *(message if self.has_message else []), *calls]

    def missing_message_events(self, status: ItemStatus) -> list[NewEvent]:
        """Return the events of an empty message, for an answer that ends without text or calls.

        An answer that is cut off within its reasoning has no message.
        """
        if self.has_message or self.call_items or (self.reasoning.is_open and status == "incomplete"):
            return []
        reasoning_end = self.reasoning.end("completed")
        self._message = "in_progress"
        return [*reasoning_end, *self._message_start_events()]

    def end_events(self, status: ItemStatus) -> list[NewEvent]:
        """Return the events that end the reasoning and the message with this status, unless they have ended.

        Every end of a step needs them; those of calls without an output are `open_call_events`.
        """
        reasoning_end = self.reasoning.end(status)
        if self._message != "in_progress":
            return reasoning_end
        text, logprobs = self.text, self._logprobs
        part = response_objects.text_part(text, logprobs)
        return [
            *reasoning_end,
            ("response.output_text.done", {**self._text_position, "text": text, "logprobs": logprobs}),
            ("response.content_part.done", {**self._text_position, "part": part}),
            (ITEM_DONE, {**self._message_position, "item": self._message_item(status)}),
        ]

    def open_call_events(self) -> list[NewEvent]:
        """Return the events that end calls which have no output, as incomplete."""
        return [
            (ITEM_DONE, {"output_index": self._call_index(number), "item": {**item, "status": "incomplete"}})
            for number, item in enumerate(self.call_items)
            if not is_done(item)
        ]

    @property
    def _message_index(self) -> int:
        """The position of the message in its response."""
        return len(self.transcript.items) + self.reasoning.has_begun

    @property
    def _message_position(self) -> dict[str, int]:
        return {"output_index": self._message_index}

    @property
    def _text_position(self) -> dict[str, Any]:
        return {"item_id": self.item_id, **self._message_position, "content_index": 0}

    def _message_item(self, status: ItemStatus) -> Mapping[str, Any]:
        return response_objects.message_item(self.item_id, self.text, status, self._logprobs)

    def _message_start_events(self) -> list[NewEvent]:
        item = response_objects.message_item(self.item_id, None, "in_progress")
        part = {**self._text_position, "part": response_objects.text_part("")}
        return [(ITEM_ADDED, {**self._message_position, "item": item}), ("response.content_part.added", part)]


def whole_item_events(item: Mapping[str, Any], output_index: int) -> Sequence[NewEvent]:
    """Return the events of a complete item that precedes the answer."""
    position = {"output_index": output_index}
    fields = {**position, "item": item}
    if item["type"] != "mcp_list_tools":
        return [(ITEM_ADDED, fields), (ITEM_DONE, fields)]
    named = {"item_id": item["id"], **position}
    result = "failed" if item["error"] else "completed"
    return [
        (ITEM_ADDED, {**position, "item": {**item, "tools": []}}),
        ("response.mcp_list_tools.in_progress", named),
        (f"response.mcp_list_tools.{result}", named),
        (ITEM_DONE, fields),
    ]


def is_done(item: Mapping[str, Any]) -> bool:
    """Return whether an item is complete: a call that the server runs is so only with its output."""
    return item.get("status") != "in_progress"


def item_events(item: Mapping[str, Any], position: Mapping[str, int]) -> Sequence[NewEvent]:
    """Return the events of a call, or of a request for approval; its end only if it is complete."""
    added: list[NewEvent] = [(ITEM_ADDED, {**position, "item": in_progress_item(item)}), *call_events(item, position)]
    return [*added, *output_events(item, position)] if is_done(item) else added


def output_events(item: Mapping[str, Any], position: Mapping[str, int]) -> Sequence[NewEvent]:
    """Return the events that end an item."""
    done: NewEvent = (ITEM_DONE, {**position, "item": item})
    if item["type"] != "mcp_call" or item["status"] == "incomplete":
        return [done]
    return [(f"response.mcp_call.{item['status']}", {"item_id": item["id"], **position}), done]

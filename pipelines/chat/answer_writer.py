"""Write an answer's events to the journal.

The items of an answer are in order: the reasoning, if the model reasons, the message, if there is text, then the
calls. Text is journalled as it is generated; the events of a call are journalled in one step once it is complete, so
that a crash leaves no part of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from models.journal.writer import Journal
from models.turns.responses import Response, TokenUsage
from pipelines.chat import response_objects
from pipelines.chat.call_items import call_events, call_item, in_progress_item, tool_call
from pipelines.chat.client_tools import ClientTool, client_tools
from pipelines.chat.logprobs import logprob_object
from pipelines.chat.reasoning_writer import NewEvent, ReasoningWriter
from pipelines.chat.response_objects import ItemStatus
from pipelines.chat.transcript import ITEM_ADDED, ITEM_DONE, TEXT_DELTA, Transcript
from pipelines.inference.engine import GeneratedCall, ReasoningToken, Token, Tool, ToolCall


class AnswerWriter:
    """Journals an answer, continuing one that earlier attempts began.

    item_id     the id of its message
    compaction  the compaction item before it, which replaces the conversation in its prompt
    call_items  the items of its calls
    reasoning   its reasoning
    """

    def __init__(self, response: Response, journal: Journal, transcript: Transcript) -> None:
        self.response = response
        self.item_id = response_objects.output_message_id(response)
        self.compaction = transcript.compaction
        self.call_items = list(transcript.calls)
        self.prompt_tokens = transcript.prompt_tokens
        self.output_tokens = transcript.tokens
        self.cached_tokens = self._hidden_reasoning = 0
        self.reasoning = ReasoningWriter(response, journal, transcript)
        self._journal = journal
        self._message = transcript.message
        self._pieces = [transcript.text]
        self._logprobs = list(transcript.logprobs)
        self._delta_fields: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls so far, for the engine."""
        return [tool_call(item) for item in self.call_items]

    @property
    def usage(self) -> TokenUsage:
        """The tokens that are billed, which are those in the journal."""
        reasoning_tokens = self.reasoning.tokens + self._hidden_reasoning
        return TokenUsage(self.prompt_tokens, self.cached_tokens, self.output_tokens, reasoning_tokens)

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

    def write_call(self, call: GeneratedCall) -> None:
        """Journal a call, after the end of the reasoning and the message."""
        item = call_item(self.response, len(self.call_items), self._tool(call.name), call)
        position = {"output_index": self._message_index + self.has_message + len(self.call_items)}
        self._journal.write_atomically([*self.end_events("completed"), *_call_events(item, position)], call.count)
        self._message = "none" if self._message == "none" else "completed"
        self.call_items.append(item)
        self.output_tokens += call.count

    def _tool(self, function: str) -> ClientTool:
        """Return the caller's tool with this function name; a new one for a name that no tool of the request has."""
        tools = client_tools(self.response.request.get("tools") or [])
        unknown = ClientTool(Tool(function, "", {}), "function", function)
        return next((tool for tool in tools if tool.function.name == function), unknown)

    def output(self, status: ItemStatus) -> list[Mapping[str, Any]]:
        """Return the response's items. One that is not complete gets this status."""
        compaction = [self.compaction] if self.compaction else []
        reasoning = [self.reasoning.item(status)] if self.reasoning.has_begun else []
        message = [self._message_item("completed" if self._message == "completed" else status)]
        return [*compaction, *reasoning, *(message if self.has_message else []), *self.call_items]

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
        """Return the events that end the reasoning and the message with this status, unless they have ended."""
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

    @property
    def _message_index(self) -> int:
        """The position of the message in its response."""
        return (self.compaction is not None) + self.reasoning.has_begun

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


def whole_item_events(item: Mapping[str, Any]) -> Sequence[NewEvent]:
    """Return the events of a complete item that is the first of its response."""
    fields = {"output_index": 0, "item": item}
    return [(ITEM_ADDED, fields), (ITEM_DONE, fields)]


def _call_events(item: Mapping[str, Any], position: Mapping[str, int]) -> Sequence[NewEvent]:
    return [
        (ITEM_ADDED, {**position, "item": in_progress_item(item)}),
        *call_events(item, position),
        (ITEM_DONE, {**position, "item": item}),
    ]

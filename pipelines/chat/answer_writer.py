"""Write an answer's events to the journal.

The items of an answer are in order: the message, if there is text, then the calls. Text is journalled as it is
generated; the events of a call are journalled in one step once it is complete, so that a crash leaves no part of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from models.journal.writer import Journal
from models.turns.responses import Response, TokenUsage
from pipelines.chat import response_objects
from pipelines.chat.call_items import begun_item, call_events, call_item, tool_call
from pipelines.chat.client_tools import ClientTool, client_tools
from pipelines.chat.response_objects import ItemStatus
from pipelines.chat.transcript import ITEM_ADDED, ITEM_DONE, TEXT_DELTA, Transcript
from pipelines.inference.engine import GeneratedCall, Token, ToolCall

#: The position of the message in its response, and of its text.
MESSAGE_POSITION = {"output_index": 0}
TEXT_POSITION = {**MESSAGE_POSITION, "content_index": 0}

NewEvent = tuple[str, Mapping[str, Any]]


class AnswerWriter:
    """Journals an answer, continuing one that earlier attempts began.

    item_id     the id of its message
    call_items  the items of its calls
    """

    def __init__(self, response: Response, journal: Journal, transcript: Transcript) -> None:
        self.response = response
        self.item_id = response_objects.output_message_id(response)
        self.call_items = list(transcript.calls)
        self.prompt_tokens = transcript.prompt_tokens
        self.output_tokens = transcript.tokens
        self.cached_tokens = 0
        self._journal = journal
        self._message = transcript.message
        self._pieces = [transcript.text]
        self._delta_fields = {"item_id": self.item_id, **TEXT_POSITION, "logprobs": []}

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
        return TokenUsage(self.prompt_tokens, self.cached_tokens, self.output_tokens)

    def begin_message(self) -> None:
        """Journal the beginning of the message, unless it is journalled already."""
        if self._message == "none":
            self._journal.write_atomically(self._message_start_events(), 0)
            self._message = "in_progress"

    def write_text(self, token: Token) -> None:
        """Journal a piece of text."""
        if self._message == "none":
            self.begin_message()
        text = token.text.replace("\0", "\ufffd")  # Postgres cannot store it
        self._pieces.append(text)
        self.output_tokens += token.count
        self._journal.write_text(TEXT_DELTA, self._delta_fields, text, token.count)

    def write_call(self, call: GeneratedCall) -> None:
        """Journal a call, and before it the end of the message, if there is one."""
        item = call_item(self.response, len(self.call_items), self._tool(call.name), call)
        position = {"output_index": len(self.call_items) + (self._message != "none")}
        self._journal.write_atomically(
            [*self.message_end_events("completed"), *_call_events(item, position)], call.count
        )
        self._message = "none" if self._message == "none" else "completed"
        self.call_items.append(item)
        self.output_tokens += call.count

    def _tool(self, function: str) -> ClientTool:
        """Return the caller's tool that an engine knows as this function; it calls no other."""
        tools = client_tools(self.response.request.get("tools") or [])
        return next(tool for tool in tools if tool.function.name == function)

    def output(self, status: ItemStatus) -> list[Mapping[str, Any]]:
        """Return the response's items. A message that is not complete gets this status."""
        if self._message == "none":
            return list(self.call_items)
        message = response_objects.message_item(
            self.item_id, self.text, "completed" if self._message == "completed" else status
        )
        return [message, *self.call_items]

    def missing_message_events(self) -> list[NewEvent]:
        """Return the events of an empty message, for an answer that ends without text or calls."""
        if self._message != "none" or self.call_items:
            return []
        self._message = "in_progress"
        return self._message_start_events()

    def message_end_events(self, status: ItemStatus) -> list[NewEvent]:
        """Return the events that end the message with this status, unless it has ended."""
        if self._message != "in_progress":
            return []
        text, position = self.text, {"item_id": self.item_id, **TEXT_POSITION}
        return [
            ("response.output_text.done", {**position, "text": text, "logprobs": []}),
            ("response.content_part.done", {**position, "part": response_objects.text_part(text)}),
            (ITEM_DONE, {**MESSAGE_POSITION, "item": response_objects.message_item(self.item_id, text, status)}),
        ]

    def _message_start_events(self) -> list[NewEvent]:
        item = response_objects.message_item(self.item_id, None, "in_progress")
        part = {"item_id": self.item_id, **TEXT_POSITION, "part": response_objects.text_part("")}
        return [(ITEM_ADDED, {**MESSAGE_POSITION, "item": item}), ("response.content_part.added", part)]


def _call_events(item: Mapping[str, Any], position: Mapping[str, int]) -> Sequence[NewEvent]:
    return [
        (ITEM_ADDED, {**position, "item": begun_item(item)}),
        *call_events(item, position),
        (ITEM_DONE, {**position, "item": item}),
    ]

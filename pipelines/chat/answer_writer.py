"""An answer as it grows, and how its journal tells it.

Its items come in order: the message, if there is text, then the calls. A message's text is told as it comes; a call is
told only once it is whole, its events together, so that no crash leaves a half of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from models.journal.writer import Journal
from models.turns.responses import Response, TokenUsage
from pipelines.chat import response_objects
from pipelines.chat.response_objects import ItemStatus
from pipelines.chat.transcript import ITEM_ADDED, ITEM_DONE, TEXT_DELTA, Transcript
from pipelines.inference.engine import GeneratedCall, Token, ToolCall

#: Where the message of an answer stands in its response.
MESSAGE_POSITION = {"output_index": 0}
TEXT_POSITION = {**MESSAGE_POSITION, "content_index": 0}

NewEvent = tuple[str, Mapping[str, Any]]


class AnswerWriter:
    """An answer that goes on after what its transcript holds.

    item_id  of its message
    calls    the items of its calls
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
        self._place = {"item_id": self.item_id, **TEXT_POSITION, "logprobs": []}

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._pieces)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls so far, for an engine."""
        return [ToolCall(item["call_id"], item["name"], item["arguments"]) for item in self.call_items]

    @property
    def usage(self) -> TokenUsage:
        """What is billed: the tokens that are journalled."""
        return TokenUsage(self.prompt_tokens, self.cached_tokens, self.output_tokens)

    def begin_message(self) -> None:
        """Tell that there is a message, as far as that has not been told."""
        if self._message == "none":
            self._journal.write_atomically(self._beginning(), 0)
            self._message = "begun"

    def write_text(self, token: Token) -> None:
        """Tell a piece of text."""
        if self._message == "none":
            self.begin_message()
        text = token.text.replace("\0", "\ufffd")  # Postgres can't hold it
        self._pieces.append(text)
        self.output_tokens += token.count
        self._journal.write_text(TEXT_DELTA, self._place, text, token.count)

    def write_call(self, call: GeneratedCall) -> None:
        """Tell a call. The message, if there is one, ends before it."""
        item = response_objects.call_item(self.response, len(self.call_items), call.name, call.arguments)
        place = {"output_index": len(self.call_items) + (self._message != "none")}
        self._journal.write_atomically([*self.message_end_events("completed"), *_call_events(item, place)], call.count)
        self._message = "none" if self._message == "none" else "ended"
        self.call_items.append(item)
        self.output_tokens += call.count

    def output(self, status: ItemStatus) -> list[Mapping[str, Any]]:
        """The items of the response, when it ends with this status of what is unfinished."""
        if self._message == "none":
            return list(self.call_items)
        message = response_objects.message_item(
            self.item_id, self.text, "completed" if self._message == "ended" else status
        )
        return [message, *self.call_items]

    def missing_message_events(self) -> list[NewEvent]:
        """What is to be told of an answer that ends without having said anything: an empty message."""
        if self._message != "none" or self.call_items:
            return []
        self._message = "begun"
        return self._beginning()

    def message_end_events(self, status: ItemStatus) -> list[NewEvent]:
        """What is left to tell of its message, when that ends with this status."""
        if self._message != "begun":
            return []
        text, place = self.text, {"item_id": self.item_id, **TEXT_POSITION}
        return [
            ("response.output_text.done", {**place, "text": text, "logprobs": []}),
            ("response.content_part.done", {**place, "part": response_objects.text_part(text)}),
            (ITEM_DONE, {**MESSAGE_POSITION, "item": response_objects.message_item(self.item_id, text, status)}),
        ]

    def _beginning(self) -> list[NewEvent]:
        item = response_objects.message_item(self.item_id, None, "in_progress")
        part = {"item_id": self.item_id, **TEXT_POSITION, "part": response_objects.text_part("")}
        return [(ITEM_ADDED, {**MESSAGE_POSITION, "item": item}), ("response.content_part.added", part)]


def _call_events(item: Mapping[str, Any], place: Mapping[str, int]) -> Sequence[NewEvent]:
    begun = {**item, "arguments": "", "status": "in_progress"}
    arguments = {"item_id": item["id"], **place}
    whole = {**arguments, "name": item["name"], "arguments": item["arguments"]}
    return [
        (ITEM_ADDED, {**place, "item": begun}),
        ("response.function_call_arguments.delta", {**arguments, "delta": item["arguments"]}),
        ("response.function_call_arguments.done", whole),
        (ITEM_DONE, {**place, "item": item}),
    ]

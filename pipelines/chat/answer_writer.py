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
from pipelines.chat.transcript import ADDED, DELTA, DONE, Transcript
from pipelines.inference.engine import Call, Token, ToolCall

#: Where the message of an answer stands in its response.
PLACE = {"output_index": 0}
TEXT_PLACE = {**PLACE, "content_index": 0}

Told = tuple[str, Mapping[str, Any]]


class Answer:
    """An answer that goes on after what its transcript holds.

    item_id  of its message
    calls    the items of its calls
    """

    def __init__(self, response: Response, journal: Journal, transcript: Transcript) -> None:
        self.response = response
        self.item_id = response_objects.output_message_id(response)
        self.calls = list(transcript.calls)
        self.prompt_tokens = transcript.prompt_tokens
        self.output_tokens = transcript.tokens
        self.cached_tokens = 0
        self._journal = journal
        self._message = transcript.message
        self._pieces = [transcript.text]
        self._place = {"item_id": self.item_id, **TEXT_PLACE, "logprobs": []}

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._pieces)

    @property
    def made(self) -> list[ToolCall]:
        """The calls so far, for an engine."""
        return [ToolCall(item["call_id"], item["name"], item["arguments"]) for item in self.calls]

    @property
    def usage(self) -> TokenUsage:
        """What is billed: the tokens that are journalled."""
        return TokenUsage(self.prompt_tokens, self.cached_tokens, self.output_tokens)

    def begin_message(self) -> None:
        """Tell that there is a message, as far as that has not been told."""
        if self._message == "none":
            self._journal.write_atomically(self._beginning(), 0)
            self._message = "begun"

    def say(self, token: Token) -> None:
        """Tell a piece of text."""
        if self._message == "none":
            self.begin_message()
        text = token.text.replace("\0", "\ufffd")  # Postgres can't hold it
        self._pieces.append(text)
        self.output_tokens += token.count
        self._journal.write_text(DELTA, self._place, text, token.count)

    def call(self, call: Call) -> None:
        """Tell a call. The message, if there is one, ends before it."""
        item = response_objects.call_item(self.response, len(self.calls), call.name, call.arguments)
        place = {"output_index": len(self.calls) + (self._message != "none")}
        self._journal.write_atomically([*self.endings("completed"), *_call_events(item, place)], call.count)
        self._message = "none" if self._message == "none" else "ended"
        self.calls.append(item)
        self.output_tokens += call.count

    def output(self, status: ItemStatus) -> list[Mapping[str, Any]]:
        """The items of the response, when it ends with this status of what is unfinished."""
        if self._message == "none":
            return list(self.calls)
        message = response_objects.message_item(
            self.item_id, self.text, "completed" if self._message == "ended" else status
        )
        return [message, *self.calls]

    def beginnings(self) -> list[Told]:
        """What is to be told of an answer that ends without having said anything: an empty message."""
        if self._message != "none" or self.calls:
            return []
        self._message = "begun"
        return self._beginning()

    def endings(self, status: ItemStatus) -> list[Told]:
        """What is left to tell of its message, when that ends with this status."""
        if self._message != "begun":
            return []
        text, place = self.text, {"item_id": self.item_id, **TEXT_PLACE}
        return [
            ("response.output_text.done", {**place, "text": text, "logprobs": []}),
            ("response.content_part.done", {**place, "part": response_objects.text_part(text)}),
            (DONE, {**PLACE, "item": response_objects.message_item(self.item_id, text, status)}),
        ]

    def _beginning(self) -> list[Told]:
        item = response_objects.message_item(self.item_id, None, "in_progress")
        part = {"item_id": self.item_id, **TEXT_PLACE, "part": response_objects.text_part("")}
        return [(ADDED, {**PLACE, "item": item}), ("response.content_part.added", part)]


def _call_events(item: Mapping[str, Any], place: Mapping[str, int]) -> Sequence[Told]:
    begun = {**item, "arguments": "", "status": "in_progress"}
    arguments = {"item_id": item["id"], **place}
    whole = {**arguments, "name": item["name"], "arguments": item["arguments"]}
    return [
        (ADDED, {**place, "item": begun}),
        ("response.function_call_arguments.delta", {**arguments, "delta": item["arguments"]}),
        ("response.function_call_arguments.done", whole),
        (DONE, {**place, "item": item}),
    ]

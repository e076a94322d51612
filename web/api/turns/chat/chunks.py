"""The chunks of a streamed chat completion."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from models.journal.events import Event
from models.platform.errors import JobFailed, RequestError
from models.serving.served_models import ServedModels
from models.turns.responses import Response
from pipelines.chat.service_tiers import served_tier
from pipelines.requests.chat.completion_object import (
    TOOL_CALLS,
    LogprobsObject,
    completion_id,
    finish_reason,
    function_object,
    logprobs_object,
    system_fingerprint,
    tool_call_object,
    turn_error,
)
from web.api.turns.choice_chunks import ChoiceChunks, CompletionStream
from web.api.turns.delivered_answer import REASONING_INDEX
from web.streams.sse import Frame


def chunk_head(first: Response, models: ServedModels) -> dict[str, Any]:
    """Return the fields that all chunks of a completion have; `first` is the response of its first choice."""
    return {
        "id": completion_id(first.id),
        "object": "chat.completion.chunk",
        "created": int(first.created_at.timestamp()),
        "model": first.request["model"],
        "service_tier": served_tier(first.request),
        "system_fingerprint": system_fingerprint(models, first.request["model"]),
    }


class ChatChunks(ChoiceChunks):
    """The chunks of one choice of a chat completion."""

    def __init__(
        self, response: Response, stream: CompletionStream, index: int = 0, *, calls_functions: bool = False
    ) -> None:
        super().__init__(response, stream, index)
        self._calls_functions = calls_functions

    def first_chunk(self) -> Frame:
        """Return the chunk with the role."""
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def _text_chunk(self, text: str, event: Mapping[str, Any]) -> Frame:
        entries = _logprobs_after(event, len(event["delta"]) - len(text))
        return self._delta({"content": text}, logprobs=logprobs_object([{"logprobs": entries}]))

    def _end_chunk(self, response: Mapping[str, Any]) -> Frame:
        return self._delta({}, finish_reason(response, calls_functions=self._calls_functions))

    def _error_of(self, response: Mapping[str, Any]) -> RequestError | JobFailed | None:
        return turn_error(response)

    def _other_chunks(self, event: Event) -> Iterator[Frame]:
        match event.type:
            case b"response.in_progress" if self._index == 0:  # the choice whose tier a completion shows
                self._stream.show_tier(orjson.loads(event.data)["response"]["service_tier"])
            case b"response.reasoning_text.delta" | b"response.reasoning_summary_text.delta":
                delta = orjson.loads(event.data)["delta"]
                if new_text := self._delivered.add(event.sequence, REASONING_INDEX, delta):
                    yield self._delta({"reasoning_content": new_text})
            case b"response.output_item.added":
                yield from self._call(event.sequence, orjson.loads(event.data))
            case b"response.function_call_arguments.delta":
                yield from self._call_text(event.sequence, orjson.loads(event.data), "function", "arguments")
            case b"response.custom_tool_call_input.delta":
                yield from self._call_text(event.sequence, orjson.loads(event.data), "custom", "input")

    def _call(self, sequence: int, event: Mapping[str, Any]) -> Iterator[Frame]:
        item = event["item"]
        if item["type"] not in TOOL_CALLS:
            return
        number = self._delivered.add_call(sequence, item, event["output_index"])
        if number is not None and self._calls_functions:
            yield self._delta({"function_call": function_object(item)})
        elif number is not None:
            yield self._delta({"tool_calls": [{"index": number, **tool_call_object(item)}]})

    def _call_text(self, sequence: int, event: Mapping[str, Any], kind: str, name: str) -> Iterator[Frame]:
        index = event["output_index"]
        if not (new_text := self._delivered.add(sequence, index, event["delta"])):
            return
        if self._calls_functions:
            yield self._delta({"function_call": {name: new_text}})
        else:
            number = list(self._delivered.calls).index(index)
            yield self._delta({"tool_calls": [{"index": number, kind: {name: new_text}}]})

    def _delta(
        self, delta: Mapping[str, Any], finish_reason: str | None = None, *, logprobs: LogprobsObject | None = None
    ) -> Frame:
        return self._stream.chunk(
            {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        )


def _logprobs_after(event: Mapping[str, Any], delivered: int) -> list[Any]:
    """Return the log probabilities of a delta's text after its first `delivered` characters."""
    entries, position = [], 0
    for entry in event.get("logprobs") or ():
        if position >= delivered:
            entries.append(entry)
        position += len(entry["token"])
    return entries

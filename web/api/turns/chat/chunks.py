"""Convert the events of a turn to the chunks of a streamed chat completion.

A sent chunk cannot be revoked. So when an attempt restarts its answer, or the journal is rewound, nothing is sent until
the new text is as long as the delivered text. If it differs, the stream ends with an error: the client never reads a
mixture of two answers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from models.journal.events import REWOUND, Event
from models.platform.errors import JobFailed, RequestError
from models.platform.json_lines import escape_line_separators
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.chat.transcript import ANSWER_RESTARTED
from web.api.turns.chat import completion_object
from web.streams.sse import DONE, Frame

#: The keys of the answer's text and of its reasoning; function calls have their output index as key.
TEXT_INDEX, REASONING_INDEX = -1, -2


class AnswerDiverged(Exception):
    """The journal's answer differs from what was delivered to the client."""


class DeliveredAnswer:
    """The answer as delivered to the client, and how much of it the journal contains.

    `_pieces` are the journal's deltas, with sequence number and output index. `_unconfirmed` is the delivered text at
    each index that the journal does not contain, which is empty except after a restart or a rewind.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int, str]] = []
        self._unconfirmed: dict[int, str] = {}
        self.calls: dict[int, Mapping[str, Any]] = {}  # by output index, in order of arrival

    def add(self, sequence: int, index: int, piece: str) -> str:
        """Add a delta of the journal; returns the part that is new to the client. Raises AnswerDiverged."""
        self._pieces.append((sequence, index, piece))
        if not self._unconfirmed:
            return piece
        expected = self._unconfirmed.pop(index, "")
        length = min(len(expected), len(piece))
        if expected[:length] != piece[:length]:
            raise AnswerDiverged
        if expected[length:]:
            self._unconfirmed[index] = expected[length:]
        return piece[length:]

    def add_call(self, sequence: int, item: Mapping[str, Any], index: int) -> int | None:
        """Add a function call; returns its number, or None if it was delivered before. Raises AnswerDiverged."""
        self._pieces.append((sequence, index, ""))
        call = self.calls.setdefault(index, item)
        if (call["call_id"], call["name"]) != (item["call_id"], item["name"]):
            raise AnswerDiverged
        return len(self.calls) - 1 if call is item else None

    def rewind(self, sequence: int) -> None:
        """Discard the journal's deltas from this sequence number on; they stay delivered."""
        lengths = Counter[int]()
        texts: dict[int, list[str]] = {}
        for _, index, piece in self._pieces:
            texts.setdefault(index, []).append(piece)
        delivered = {
            index: "".join(texts.get(index, [])) + self._unconfirmed.get(index, "")
            for index in {*texts, *self._unconfirmed}
        }
        self._pieces = [entry for entry in self._pieces if entry[0] < sequence]
        for _, index, piece in self._pieces:
            lengths[index] += len(piece)
        self._unconfirmed = {
            index: text[lengths[index] :] for index, text in delivered.items() if text[lengths[index] :]
        }

    def check_complete(self) -> None:
        """Check the answer at the journal's end. Raises AnswerDiverged if the journal has less than was delivered."""
        if self._unconfirmed or not set(self.calls) <= {index for _, index, _ in self._pieces}:
            raise AnswerDiverged


class CompletionStream:
    """The shared state of the choices of one completion: the fields of each chunk, and the number of open choices."""

    def __init__(self, first: Response, settings: Settings, choices: int = 1, *, include_usage: bool) -> None:
        self.include_usage = include_usage
        self.head = {
            "id": completion_object.completion_id(first.id),
            "object": "chat.completion.chunk",
            "created": int(first.created_at.timestamp()),
            "model": first.request["model"],
            "service_tier": "default",
            "system_fingerprint": completion_object.system_fingerprint(settings),
        }
        self._open = choices
        self._usages: list[Mapping[str, Any]] = []

    def end_choice(self, usage: Mapping[str, Any]) -> Iterator[Frame]:
        """Yield the last frames, if this was the last choice to end."""
        self._open -= 1
        self._usages.append(usage)
        if self._open:
            return
        if self.include_usage:
            yield data_frame({**self.head, "choices": [], "usage": completion_object.sum_usage(self._usages)})
        yield DONE


class CompletionChunks:
    """The chunks of one choice. `ended` is true after the last chunk.

    `failed`: the turn ended without an answer. `diverged`: the stream ended with the error `answer_restarted`.
    """

    def __init__(
        self, response: Response, stream: CompletionStream, index: int = 0, *, calls_functions: bool = False
    ) -> None:
        self._response_id = response.id
        self._stream = stream
        self._index = index
        self._calls_functions = calls_functions
        self._delivered = DeliveredAnswer()
        self.ended = self.failed = self.diverged = False

    def first_chunk(self) -> Frame:
        """Return the first chunk, which has the role."""
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def frames(self, event: Event) -> Iterator[Frame]:
        """Yield the chunks for an event. Most types have none, and after the end there are none."""
        if self.ended:
            return
        try:
            yield from self._frames(event)
        except AnswerDiverged:
            self.ended = self.diverged = True
            yield error_frame(
                self._stream_error(
                    "The answer was restarted and differs from the part that was sent", "answer_restarted"
                )
            )

    def interrupted(self) -> Frame:
        """Return the error frame for a stream that ends before its turn."""
        return error_frame(self._stream_error("The stream was interrupted", "stream_interrupted"))

    def _frames(self, event: Event) -> Iterator[Frame]:
        match event.type:
            case b"response.output_text.delta":
                yield from self._text(event.sequence, orjson.loads(event.data))
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
            case kind if kind == REWOUND:
                self._delivered.rewind(event.sequence)
            case kind if kind == ANSWER_RESTARTED.encode():
                self._delivered.rewind(0)
            case _ if event.ends:
                yield from self._end(orjson.loads(event.data))

    def _text(self, sequence: int, event: Mapping[str, Any]) -> Iterator[Frame]:
        if new_text := self._delivered.add(sequence, TEXT_INDEX, event["delta"]):
            entries = _logprobs_after(event, len(event["delta"]) - len(new_text))
            logprobs = completion_object.logprobs_object([{"logprobs": entries}])
            yield self._delta({"content": new_text}, logprobs=logprobs)

    def _call(self, sequence: int, event: Mapping[str, Any]) -> Iterator[Frame]:
        item = event["item"]
        if item["type"] not in completion_object.CALLS:
            return
        number = self._delivered.add_call(sequence, item, event["output_index"])
        if number is not None and self._calls_functions:
            yield self._delta({"function_call": completion_object.function_object(item)})
        elif number is not None:
            yield self._delta({"tool_calls": [{"index": number, **completion_object.tool_call_object(item)}]})

    def _call_text(self, sequence: int, event: Mapping[str, Any], kind: str, name: str) -> Iterator[Frame]:
        index = event["output_index"]
        if not (new_text := self._delivered.add(sequence, index, event["delta"])):
            return
        if self._calls_functions:
            yield self._delta({"function_call": {name: new_text}})
        else:
            number = list(self._delivered.calls).index(index)
            yield self._delta({"tool_calls": [{"index": number, kind: {name: new_text}}]})

    def _end(self, event: Mapping[str, Any]) -> Iterator[Frame]:
        self.ended = True
        response = event.get("response") or {"id": self._response_id, "status": "cancelled"}
        if (error := completion_object.turn_error(response)) is not None:
            self.failed = True
            yield error_frame(error)
            return
        self._delivered.check_complete()
        yield self._delta({}, completion_object.finish_reason(response, calls_functions=self._calls_functions))
        yield from self._stream.end_choice(response["usage"])

    def _delta(
        self,
        delta: Mapping[str, Any],
        finish_reason: str | None = None,
        *,
        logprobs: completion_object.LogprobsObject | None = None,
    ) -> Frame:
        choice = {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._stream.include_usage else {}
        return data_frame({**self._stream.head, "choices": [choice], **usage})

    def _stream_error(self, reason: str, code: str) -> JobFailed:
        return JobFailed(f"{reason}. Read the whole answer at GET /v1/responses/{self._response_id}.", code=code)


def _logprobs_after(event: Mapping[str, Any], delivered: int) -> list[Any]:
    """Return the log probabilities of a delta's text after its first `delivered` characters."""
    entries, position = [], 0
    for entry in event.get("logprobs") or ():
        if position >= delivered:
            entries.append(entry)
        position += len(entry["token"])
    return entries


def data_frame(value: Mapping[str, Any]) -> Frame:
    """Serialize a value as a frame. The frames have no ids, as chat streams cannot be resumed."""
    return b"data: %b\n\n" % escape_line_separators(orjson.dumps(value))


def error_frame(error: RequestError | JobFailed) -> Frame:
    """Serialize an error as a frame, in the error envelope, which OpenAI's clients raise."""
    param, kind = (error.param, "invalid_request_error") if isinstance(error, RequestError) else (None, "server_error")
    return data_frame({"error": {"message": error.message, "type": kind, "param": param, "code": error.code}})

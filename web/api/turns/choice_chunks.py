"""Convert the events of a completion's turns to the chunks of its stream. The APIs differ in the form of a chunk."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from models.journal.events import REWOUND, Event
from models.platform.errors import JobFailed, RequestError
from models.platform.json_lines import escape_line_separators
from models.turns.responses import Response
from pipelines.chat.transcript import ANSWER_RESTARTED, TEXT_DELTA
from pipelines.requests.chat.completion_object import MESSAGE_SEPARATOR, sum_usage
from web.api.turns.delivered_answer import TEXT_INDEX, AnswerDiverged, DeliveredAnswer
from web.streams.sse import DONE, Frame

TEXT, RESTARTED = TEXT_DELTA.encode(), ANSWER_RESTARTED.encode()


class CompletionStream:
    """The shared state of the choices of one completion: the fields of each chunk, and the number of open choices."""

    def __init__(self, head: Mapping[str, Any], choices: int = 1, *, include_usage: bool) -> None:
        self._head = head
        self._open = choices
        self._include_usage = include_usage
        self._usages: list[Mapping[str, Any]] = []

    def show_tier(self, tier: str) -> None:
        """Show the tier that serves the completion in the chunks from now on."""
        self._head = {**self._head, "service_tier": tier}

    def chunk(self, choice: Mapping[str, Any]) -> Frame:
        """Return the chunk of a choice."""
        usage = {"usage": None} if self._include_usage else {}
        return data_frame({**self._head, "choices": [choice], **usage})

    def end_choice(self, usage: Mapping[str, Any]) -> Iterator[Frame]:
        """Yield the last frames, if this was the last choice to end."""
        self._open -= 1
        self._usages.append(usage)
        if self._open:
            return
        if self._include_usage:
            yield data_frame({**self._head, "choices": [], "usage": sum_usage(self._usages)})
        yield DONE


class ChoiceChunks(ABC):
    """The chunks of one choice. `ended` is true after the last chunk.

    `failed`: the turn ended without an answer. `diverged`: the stream ended with the error `answer_restarted`.
    """

    def __init__(self, response: Response, stream: CompletionStream, index: int = 0) -> None:
        self._response_id = response.id
        self._stream = stream
        self._index = index
        self._delivered = DeliveredAnswer()
        self._begins: dict[str, int] = {}  # by message, the sequence number of its first text
        self.ended = self.failed = self.diverged = False

    @abstractmethod
    def first_chunk(self) -> Frame:
        """Return the chunk before the answer; empty if there is none."""

    def frames(self, event: Event) -> Iterator[Frame]:
        """Yield the chunks for an event. Most types have none, and after the end there are none."""
        if self.ended:
            return
        try:
            yield from self._frames(event)
        except AnswerDiverged:
            self.ended = self.diverged = True
            message = f"The answer was restarted and differs from the part that was sent. {self._where_to_read()}"
            yield error_frame(JobFailed(message, code="answer_restarted"))

    def interrupted(self) -> Frame:
        """Return the error frame for a stream that ends before its turn."""
        message = f"The stream was interrupted. {self._where_to_read()}"
        return error_frame(JobFailed(message, code="stream_interrupted"))

    @abstractmethod
    def _text_chunk(self, text: str, event: Mapping[str, Any]) -> Frame:
        """Return the chunk of the text that is new to the client, of a delta of the answer."""

    @abstractmethod
    def _end_chunk(self, response: Mapping[str, Any]) -> Frame:
        """Return the chunk with the reason for the end."""

    @abstractmethod
    def _error_of(self, response: Mapping[str, Any]) -> RequestError | JobFailed | None:
        """Return the error of a response that has no answer, or None."""

    def _other_chunks(self, event: Event) -> Iterator[Frame]:
        """Yield the chunks for an event that has no text and does not end the turn."""
        yield from ()

    def _frames(self, event: Event) -> Iterator[Frame]:
        if event.type == TEXT:
            yield from self._text(event.sequence, orjson.loads(event.data))
        elif event.type == REWOUND:
            self._rewind(event.sequence)
        elif event.type == RESTARTED:
            self._rewind(orjson.loads(event.data).get("since", 0))
        elif event.ends:
            yield from self._end(orjson.loads(event.data))
        else:
            yield from self._other_chunks(event)

    def _text(self, sequence: int, event: Mapping[str, Any]) -> Iterator[Frame]:
        begins = self._begins.setdefault(event.get("item_id", ""), sequence) == sequence and len(self._begins) > 1
        delta = f"{MESSAGE_SEPARATOR}{event['delta']}" if begins else event["delta"]
        if new_text := self._delivered.add(sequence, TEXT_INDEX, delta):
            yield self._text_chunk(new_text, event)

    def _rewind(self, sequence: int) -> None:
        self._delivered.rewind(sequence)
        self._begins = {item_id: first for item_id, first in self._begins.items() if first < sequence}

    def _end(self, event: Mapping[str, Any]) -> Iterator[Frame]:
        self.ended = True
        response = event.get("response") or {"id": self._response_id, "status": "cancelled"}
        if (error := self._error_of(response)) is not None:
            self.failed = True
            yield error_frame(error)
            return
        self._delivered.check_complete()
        yield self._end_chunk(response)
        yield from self._stream.end_choice(response["usage"])

    def _where_to_read(self) -> str:
        return f"Read the whole answer at GET /v1/responses/{self._response_id}."


def data_frame(value: Mapping[str, Any]) -> Frame:
    """Serialize a value as a frame. The frames have no ids, as the streams of completions cannot be resumed."""
    return b"data: %b\n\n" % escape_line_separators(orjson.dumps(value))


def error_frame(error: RequestError | JobFailed) -> Frame:
    """Serialize an error as a frame, in the error envelope, which OpenAI's clients raise."""
    param, kind = (error.param, "invalid_request_error") if isinstance(error, RequestError) else (None, "server_error")
    return data_frame({"error": {"message": error.message, "type": kind, "param": param, "code": error.code}})

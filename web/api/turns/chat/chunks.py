"""The events of a turn as the chunks of a streamed chat completion.

A chunk can't be taken back. So where an attempt begins its answer again, or the journal was rewound, nothing is sent
until what the journal says has come to where the client is. If it says something else by then, the stream ends with an
error: the client never reads a mixture.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from models.journal.events import REWOUND, Event
from models.platform.errors import JobFailed, RequestError
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.chat.transcript import ANSWER_RESTARTED
from web.api.turns.chat import objects
from web.streams.sse import Frame

DONE: Frame = b"data: [DONE]\n\n"

#: Where text stands among the places of an answer; a call stands at its output index.
TEXT_INDEX = -1


class AnswerDiverged(Exception):
    """The journal says something else than the client has read."""


class DeliveredAnswer:
    """What the client has read, and how far the journal has said it.

    `said` are the journal's pieces, with sequence number and place; `ahead` is what the client has at each place beyond
    them, which is nothing but after a restart or a rewind.
    """

    def __init__(self) -> None:
        self._said: list[tuple[int, int, str]] = []
        self._ahead: dict[int, str] = {}
        self.calls: dict[int, Mapping[str, Any]] = {}  # output index → its item, in the order in which they came

    def add(self, sequence: int, place: int, piece: str) -> str:
        """The journal says a piece; returns what of it is news to the client. Raises Diverged."""
        self._said.append((sequence, place, piece))
        if not self._ahead:
            return piece
        known = self._ahead.pop(place, "")
        length = min(len(known), len(piece))
        if known[:length] != piece[:length]:
            raise AnswerDiverged
        if known[length:]:
            self._ahead[place] = known[length:]
        return piece[length:]

    def add_call(self, sequence: int, item: Mapping[str, Any], place: int) -> int | None:
        """A call begins; returns its number, or None when the client knows of it. Raises Diverged."""
        self._said.append((sequence, place, ""))
        known = self.calls.setdefault(place, item)
        if (known["call_id"], known["name"]) != (item["call_id"], item["name"]):
            raise AnswerDiverged
        return len(self.calls) - 1 if known is item else None

    def back_to(self, sequence: int) -> None:
        """What the journal said from this number on counts no more; the client has it all the same."""
        told = Counter[int]()
        texts: dict[int, list[str]] = {}
        for _, place, piece in self._said:
            texts.setdefault(place, []).append(piece)
        whole = {place: "".join(texts.get(place, [])) + self._ahead.get(place, "") for place in {*texts, *self._ahead}}
        self._said = [entry for entry in self._said if entry[0] < sequence]
        for _, place, piece in self._said:
            told[place] += len(piece)
        self._ahead = {place: text[told[place] :] for place, text in whole.items() if text[told[place] :]}

    def check(self) -> None:
        """The journal has ended. Raises Diverged when it has said less than the client has read."""
        if self._ahead or not set(self.calls) <= {place for _, place, _ in self._said}:
            raise AnswerDiverged


class CompletionChunks:
    """The chunks of one completion. `ended` says that all is told, `diverged` that the client has something else."""

    def __init__(self, response: Response, settings: Settings, *, include_usage: bool) -> None:
        self._response_id = response.id
        self._head = {
            "id": objects.completion_id(response.id),
            "object": "chat.completion.chunk",
            "created": int(response.created_at.timestamp()),
            "model": response.request["model"],
            "service_tier": "default",
            "system_fingerprint": objects.system_fingerprint(settings),
        }
        self._include_usage = include_usage
        self._told = DeliveredAnswer()
        self.ended = self.diverged = False

    def opening(self) -> Frame:
        """The first chunk, which says who speaks."""
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def frames(self, event: Event) -> Iterator[Frame]:
        """What an event is to the client: of most kinds nothing, and after the end nothing at all."""
        if self.ended:
            return
        try:
            yield from self._frames(event)
        except AnswerDiverged:
            self.ended = self.diverged = True
            yield error_frame(self._broken("The answer had to begin again, and became another one", "answer_restarted"))

    def cut(self) -> Frame:
        """What the client hears when its stream ends before the turn does."""
        return error_frame(self._broken("The stream was interrupted", "stream_interrupted"))

    def _frames(self, event: Event) -> Iterator[Frame]:
        match event.type:
            case b"response.output_text.delta":
                if news := self._told.add(event.sequence, TEXT_INDEX, orjson.loads(event.data)["delta"]):
                    yield self._delta({"content": news})
            case b"response.output_item.added":
                yield from self._call(event.sequence, orjson.loads(event.data))
            case b"response.function_call_arguments.delta":
                yield from self._arguments(event.sequence, orjson.loads(event.data))
            case kind if kind == REWOUND:
                self._told.back_to(event.sequence)
            case kind if kind == ANSWER_RESTARTED.encode():
                self._told.back_to(0)
            case _ if event.ends:
                yield from self._end(orjson.loads(event.data))

    def _call(self, sequence: int, added: Mapping[str, Any]) -> Iterator[Frame]:
        item = added["item"]
        if item["type"] != "function_call":
            return
        number = self._told.add_call(sequence, item, added["output_index"])
        if number is not None:
            yield self._delta({"tool_calls": [{"index": number, **objects.tool_call_object({**item, "arguments": ""})}]})

    def _arguments(self, sequence: int, told: Mapping[str, Any]) -> Iterator[Frame]:
        place = told["output_index"]
        if news := self._told.add(sequence, place, told["delta"]):
            number = list(self._told.calls).index(place)
            yield self._delta({"tool_calls": [{"index": number, "function": {"arguments": news}}]})

    def _end(self, told: Mapping[str, Any]) -> Iterator[Frame]:
        self.ended = True
        shown = told.get("response") or {"id": self._response_id, "status": "cancelled"}
        if (error := objects.turn_error(shown)) is not None:
            yield error_frame(error)
            return
        self._told.check()
        yield self._delta({}, objects.finish_reason(shown))
        if self._include_usage:
            yield data_frame({**self._head, "choices": [], "usage": objects.usage_object(shown["usage"])})
        yield DONE

    def _delta(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> Frame:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return data_frame({**self._head, "choices": [choice], **usage})

    def _broken(self, what: str, code: str) -> JobFailed:
        return JobFailed(f"{what}; the whole answer: GET /v1/responses/{self._response_id}.", code=code)


def data_frame(value: Mapping[str, Any]) -> Frame:
    """A value on the wire. These frames have no ids: a chat stream can't be joined again."""
    return b"data: %b\n\n" % orjson.dumps(value)


def error_frame(error: RequestError | JobFailed) -> Frame:
    """An error in mid-stream, in the one envelope: OpenAI's clients raise it."""
    param, kind = (error.param, "invalid_request_error") if isinstance(error, RequestError) else (None, "server_error")
    return data_frame({"error": {"message": error.message, "type": kind, "param": param, "code": error.code}})

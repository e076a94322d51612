"""Parse event streams as Sangha writes them, and check what a client received."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

import orjson

from models.journal.events import ENDINGS
from models.journal.events import REWOUND as REWOUND_BYTES
from pipelines.chat.transcript import ANSWER_RESTARTED

#: The mark of an attempt at a word of the scripted engine.
MARK = re.compile(r"\.[0-9a-f]{4}(?= |$)")

DELTA = "response.output_text.delta"

#: The frame after the last event of a stream of OpenAI's types.
DONE = b"data: [DONE]"

#: The header with which a stream has all events of its journal, and contiguous numbers.
ALL_EVENTS = {"X-Sangha-Events": "all"}
REWOUND = REWOUND_BYTES.decode()


class CheckFailed(Exception):
    """The platform violated a guarantee that a measurement depends on."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event as a client received it: when (`time.monotonic`), and over which of the client's connections."""

    at: float
    sequence: int
    type: str
    data: bytes
    connection: int = 0

    def json(self) -> dict[str, Any]:
        """Parse the event."""
        parsed: dict[str, Any] = orjson.loads(self.data)
        return parsed

    @property
    def is_last(self) -> bool:
        """Whether the stream ends with this event."""
        return self.type.encode() in ENDINGS


def chunks(response: HTTPResponse) -> Iterator[bytes]:
    """Read a response's body as it arrives."""
    while data := response.read1(65536):
        yield data


def read_events(received: Iterable[bytes], connection: int = 0) -> Iterator[ReceivedEvent]:
    """Parse a stream's bytes, cut anywhere. Comments and an incomplete last event are dropped."""
    rest = b""
    for chunk in received:
        now = time.monotonic()
        *frames, rest = (rest + chunk).split(b"\n\n")
        for frame in map(without_comments, frames):
            if frame.startswith(b"id:"):  # not the end of the stream, nor an event that is in no journal
                yield parse_frame(frame, now, connection)


def without_comments(frame: bytes) -> bytes:
    """Remove the comment lines in front of a frame: the server's comment is one line, not a frame of its own."""
    while frame.startswith(b":"):
        frame = frame.partition(b"\n")[2]
    return frame


def parse_frame(frame: bytes, at: float, connection: int = 0) -> ReceivedEvent:
    """Parse a frame with the fields id, event and data in this order, as the server writes them."""
    sequence, type_, data = frame.split(b"\n", 2)
    return ReceivedEvent(at, int(sequence[4:]), type_[7:].decode(), data[6:], connection)


def effective_events(events: Sequence[ReceivedEvent]) -> list[ReceivedEvent]:
    """Drop the events that a later rewind replaced; a rewind replaces those from its own number on."""
    effective: list[ReceivedEvent] = []
    for event in events:
        if event.type == REWOUND:
            while effective and effective[-1].sequence >= event.sequence:
                effective.pop()
        effective.append(event)
    return effective


def text_of(events: Iterable[ReceivedEvent]) -> str:
    """Join the deltas since the last restart of the answer."""
    pieces: list[str] = []
    for event in events:
        if event.type == ANSWER_RESTARTED:
            pieces.clear()
        elif event.type == DELTA:
            pieces.append(event.json()["delta"])
    return "".join(pieces)


def is_delta(event: ReceivedEvent) -> bool:
    """Return whether an event carries text."""
    return event.type == DELTA


def scripted_text(tokens: int) -> str:
    """Return the answer of the scripted engine: `w0 w1 w2 …`."""
    return "".join(f"w{number} " for number in range(tokens))


def without_marks(text: str) -> str:
    """Remove the marks by which the scripted engine tells the words of its attempts apart: `w0.3f9a` becomes `w0`."""
    return MARK.sub("", text)


def marks_of(text: str) -> list[str]:
    """Return the mark of each word, empty where it has none."""
    return [word.partition(".")[2] for word in text.split()]


def check_stream(events: Sequence[ReceivedEvent], tokens: int | None = None) -> None:
    """Check that a stream has no gap, completed, and carries the text of a scripted turn with so many tokens.

    Raises CheckFailed.
    """
    if not events or [event.sequence for event in events] != list(range(len(events))):
        raise CheckFailed(f"the sequence numbers have gaps or repeats: {[event.sequence for event in events]}")
    if events[-1].type not in ("response.completed", "response.incomplete"):
        raise CheckFailed(f"a turn ended with {events[-1].type}: {events[-1].data.decode()[:500]}")
    if tokens is not None and text_of(events) != scripted_text(tokens):
        raise CheckFailed(f"a scripted turn has the text {text_of(events)[:500]!r}")

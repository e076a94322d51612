"""What one client knows of one piece of work, from its first try to its end: all that the checker has to go by.

Times are of `time.monotonic`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from bench import client
from models.journal.events import ENDINGS

Kind = Literal["turn", "memories", "meditation", "embeddings", "listing"]

#: How a connection says where it goes on.
How = Literal["create", "Last-Event-ID", "starting_after", "openai"]

REWOUND = "sangha:journal.rewound"
RESTARTED = "sangha:answer.restarted"
DELTA = "response.output_text.delta"

#: The tokens of a whole answer, and how many come in a second: what the workers' `SANGHA_SCRIPT` has to say.
TOKENS, RATE = 40, 40
SCRIPT = f"tokens={TOKENS},rate={RATE}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back of one try; the status 0 is a connection that broke, or kept silent, before it was known."""

    at: float
    status: int
    code: str = ""
    id: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the work stands from here on."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection that carried events: since when, to which door, behind which number, and asked for how."""

    at: float
    door: int
    after: int
    how: How


@dataclass(frozen=True, slots=True)
class Heard:
    """An event: when, over which of the connections, and its bytes."""

    at: float
    connection: int
    sequence: int
    type: str
    data: bytes

    def json(self) -> dict[str, Any]:
        """The event, parsed."""
        parsed: dict[str, Any] = orjson.loads(self.data)
        return parsed

    @property
    def ends(self) -> bool:
        """Whether it is the last of its stream."""
        return self.type.encode() in ENDINGS


@dataclass(frozen=True, slots=True)
class Replay:
    """An ended stream, asked for again behind a number."""

    after: int
    events: Sequence[Heard]


@dataclass(slots=True)
class Transcript:
    """One piece of work, as its client saw it.

    key       the Idempotency-Key of all tries; the turn's metadata has it as `chaos`
    exact     whether the bytes of its events were seen: OpenAI's client shows only what they mean
    length    the tokens that the script has for it; the texts of memories, or of embeddings, are in `asked`
    answers   to all tries of the creating request
    cancels   to all tries of its cancel
    statuses  what polls said, in order
    refused   connections to its stream that broke or were not opened: `code` says which door, and how
    final     the object as it was once the client knew that it had ended
    strange   answers that no client should get, whatever breaks
    """

    kind: Kind
    client: str
    account: str
    key: str
    asked: Mapping[str, Any]
    begun: float
    length: int = 0
    exact: bool = True
    id: str = ""
    job_id: str = ""
    answers: list[Answer] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    events: list[Heard] = field(default_factory=list)
    cancels: list[Answer] = field(default_factory=list)
    refused: list[Answer] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    replays: list[Replay] = field(default_factory=list)
    final: Mapping[str, Any] | None = None
    ended: float | None = None
    strange: list[str] = field(default_factory=list)

    @property
    def subject(self) -> str:
        """What to call it in a report."""
        return f"{self.client} {self.kind} {self.id or self.job_id or self.key}"

    @property
    def accepted_at(self) -> float | None:
        """When its client first heard that it stands; None where it never did."""
        return next((answer.at for answer in self.answers if answer.accepted), None)

    @property
    def last(self) -> int:
        """The last sequence number heard, and so where to go on; -1 before the first."""
        return self.events[-1].sequence if self.events else -1

    @property
    def over(self) -> bool:
        """Whether the last event was heard."""
        return bool(self.events) and self.events[-1].ends

    def hear(self, heard: Heard) -> None:
        """Note an event."""
        self.events.append(heard)

    def standing(self) -> list[Heard]:
        """The events that count: a rewind takes back those heard from its number on."""
        return standing(self.events)


def standing(events: Sequence[Heard]) -> list[Heard]:
    """Of events in the order in which they were heard, those that no later rewind took back."""
    left: list[Heard] = []
    for heard in events:
        if heard.type == REWOUND:
            while left and left[-1].sequence >= heard.sequence:
                left.pop()
        left.append(heard)
    return left


def text_of(events: Sequence[Heard]) -> str:
    """The deltas joined, since the last restart of the answer."""
    pieces: list[str] = []
    for heard in events:
        if heard.type == RESTARTED:
            pieces.clear()
        elif heard.type == DELTA:
            pieces.append(heard.json()["delta"])
    return "".join(pieces)


def frames(chunks: Iterator[bytes]) -> Iterator[tuple[int, str, bytes]]:
    """Sequence number, type and data of each whole event in a stream's bytes. Comments are passed over."""
    rest = b""
    for chunk in chunks:
        whole, rest = client.cut(rest + chunk)
        for event in (client.heard(0.0, frame) for frame in whole):
            yield event.sequence, event.type, event.data

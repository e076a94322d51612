"""The endpoint's book: every request that it received, and what it sent. No fault of Sangha affects it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

#: How a request ended: `open` is not ended; `disconnected` by the client before the last token.
Outcome = Literal["open", "answered", "disconnected", "failed"]


@dataclass(slots=True)
class BookedRequest:
    """A request.

    number   counts from 1
    at, ended_at  by time.time; None until it ended
    key      its Idempotency-Key
    text     the texts of its messages, the last one at the end
    first    the number of the first token of its answer: where it continued a text
    mark     of its words
    status   of the response; 0: none was sent
    sent     tokens that were sent
    fault    that affected it
    """

    number: int
    at: float
    key: str
    model: str
    text: str
    first: int = 0
    mark: str = ""
    status: int = 0
    sent: int = 0
    outcome: Outcome = "open"
    fault: str = "none"
    ended_at: float | None = None

    def json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)


def parse_book(requests: Sequence[Mapping[str, Any]]) -> list[BookedRequest]:
    """Return the requests of a book that was read as JSON."""
    return [BookedRequest(**request) for request in requests]

"""Convert a turn's journal to the events of OpenAI's API.

OpenAI's clients throw at types that they do not know, and cannot take back what they received. So their streams have
no event of ours: what those say is in the field `sangha` of `response.in_progress`, and a number is skipped where one
stood. A stream whose journal takes back a part of the answer that was delivered ends with the event `error`.
"""

from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from models.journal.events import EXTENSION, REWOUND, Event, event
from pipelines.chat.transcript import (
    ANSWER_RESTARTED,
    ITEM_ADDED,
    ITEM_DONE,
    REASONING_DELTA,
    SUMMARY_DELTA,
    TEXT_DELTA,
)

RESTARTED, TEXT = ANSWER_RESTARTED.encode(), TEXT_DELTA.encode()
ITEM, ITEMS = ITEM_ADDED.encode(), frozenset({ITEM_ADDED.encode(), ITEM_DONE.encode()})
REASONING_ITEM, COMPACTION_ITEM = b'"type":"reasoning"', b'"type":"compaction"'
REASONING = frozenset({REASONING_DELTA.encode(), SUMMARY_DELTA.encode()})

#: The events that precede an answer, each delivered once.
CREATED, QUEUED, IN_PROGRESS = b"response.created", b"response.queued", b"response.in_progress"
OPENING = frozenset({CREATED, QUEUED, IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart of the answer, or of its last generation.

    since       the sequence number from which on the answer is discarded
    with_items  there was reasoning before it, so that the items begin again, too
    """

    sequence: int
    with_items: bool
    since: int = 0

    def discards(self, journalled: Event) -> bool:
        """Return whether an event belongs to the answer before the restart."""
        if not self.since <= journalled.sequence < self.sequence:
            return False
        return _is_of_the_answer(journalled) if self.with_items else journalled.type == TEXT


async def find_last_restart(pages: AsyncIterable[Sequence[Event]]) -> Restart | None:
    """Find the last restart in the events of a journal."""
    last, last_reasoning = None, -1
    async for events in pages:
        for journalled in events:
            if journalled.type in REASONING:
                last_reasoning = journalled.sequence
            if journalled.type == RESTARTED:
                last = _restart(journalled, last_reasoning)
    return last


def _restart(journalled: Event, last_reasoning: int) -> Restart:
    """Read a restart. `last_reasoning` is the sequence number of the last reasoning before it, or -1."""
    since = orjson.loads(journalled.data).get("since", 0)
    return Restart(journalled.sequence, last_reasoning >= since, since)


class StandardEvents:
    """The events of one stream, whose client has received those up to `after`. `ended` is true after the last one.

    `restart` is the last one in the journal before the stream begins, for a client that has received nothing: the
    stream leaves out the answer before it.
    """

    def __init__(self, response_id: str, after: int = -1, restart: Restart | None = None) -> None:
        self._response_id = response_id
        self._restart = restart
        self._last_sequence = -1
        self._opening: set[bytes] = set()
        # Until the stream shows that the answer begins in it, an earlier stream may have delivered anything.
        self._last_part = self._last_text = after
        self.ended = False

    def convert(self, events: Sequence[Event]) -> list[Event]:
        """Convert events that arrived together."""
        converted: list[Event] = []
        for journalled in self._without_discarded_text(self._after_restart(events)):
            converted += self._convert(journalled)
            if self.ended:
                break
        return converted

    def _after_restart(self, events: Sequence[Event]) -> Sequence[Event]:
        """Drop the answer before the restart that is known from the beginning."""
        kept = []
        for journalled in events:
            if journalled.sequence <= self._last_sequence:  # a rewind: what follows is another answer
                self._restart = None
            self._last_sequence = journalled.sequence
            if self._restart is None or not self._restart.discards(journalled):
                kept.append(journalled)
        return kept

    def _without_discarded_text(self, events: Sequence[Event]) -> Sequence[Event]:
        """Drop the text before the last restart, if this batch has all of it."""
        types = [journalled.type for journalled in events]
        if RESTARTED not in types:
            return events
        restart = len(types) - 1 - types[::-1].index(RESTARTED)
        reasoning = [each.sequence for each in events[:restart] if each.type in REASONING]
        found = _restart(events[restart], max(reasoning, default=-1))
        if self._last_text >= found.since and IN_PROGRESS not in types[:restart]:
            return events
        return [journalled for journalled in events if not found.discards(journalled)]

    def _convert(self, journalled: Event) -> Iterator[Event]:
        type_ = journalled.type
        if type_ in OPENING:
            yield from self._opening_event(journalled)
        elif not type_.startswith(EXTENSION):
            self._last_part = journalled.sequence
            if _is_discarded_by_restart(journalled):
                self._last_text = journalled.sequence
            self.ended = journalled.ends
            yield journalled
        elif journalled.ends:
            self.ended = True
            yield _ending(journalled)
        elif self._discards_sent_output(journalled):
            self.ended = True
            yield self._restart_error(journalled)

    def _opening_event(self, journalled: Event) -> Iterator[Event]:
        if journalled.type == IN_PROGRESS:
            self._last_part = self._last_text = -1
        if journalled.type not in self._opening:
            self._opening.add(journalled.type)
            yield journalled

    def _discards_sent_output(self, journalled: Event) -> bool:
        if journalled.type == RESTARTED:
            return self._last_text >= _restart(journalled, -1).since
        return journalled.type == REWOUND and journalled.sequence <= self._last_part

    def _restart_error(self, journalled: Event) -> Event:
        """Build the error. After a restart the client can resume; a rewind reuses sequence numbers, so it cannot."""
        number = journalled.sequence
        rest = f"stream=true&starting_after={number}" if journalled.type == RESTARTED else "stream=true"
        message = (
            "The answer was restarted and differs from the part that was sent. "
            f"Discard that part and continue reading at GET /v1/responses/{self._response_id}?{rest}."
        )
        return _error_event(number, "answer_restarted", message)


def _is_of_the_answer(journalled: Event) -> bool:
    """Return whether an event belongs to the reasoning, the message or a call, not to a compaction before them."""
    if journalled.type in ITEMS and COMPACTION_ITEM in journalled.data:
        return False
    return journalled.type not in OPENING and not journalled.type.startswith(EXTENSION)


def _is_discarded_by_restart(journalled: Event) -> bool:
    """Return whether a restart discards the event: a delta of text or reasoning, or a reasoning item."""
    if journalled.type == ITEM:
        return REASONING_ITEM in journalled.data
    return journalled.type == TEXT or journalled.type in REASONING


def _ending(journalled: Event) -> Event:
    """Convert the last event of a journal: OpenAI has no event for a cancelled response, only a status."""
    payload: Mapping[str, Any] = orjson.loads(journalled.data)
    if response := payload.get("response"):
        return event(journalled.sequence, "response.incomplete", {"response": response})
    error = payload.get("error") or {"code": "cancelled", "message": "The turn was cancelled."}
    return _error_event(journalled.sequence, error["code"], error["message"])


def _error_event(sequence: int, code: str, message: str) -> Event:
    """Build an `error` event. Clients read its fields, or, like OpenAI's, raise what is in `error`."""
    fields = {"code": code, "message": message, "param": None}
    return event(sequence, "error", {**fields, "error": {**fields, "type": "server_error"}})

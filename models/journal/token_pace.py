"""How fast an attempt generates, and how long after its creation a job had its first token."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from models.journal.events import Event

#: The field of the event with the first tokens of a job that is ours, and in it the seconds since the job's creation.
EXTENSION_FIELD, FIRST_TOKEN = "sangha", "first_token_seconds"


class TokenPace:
    """When an attempt has generated tokens.

    created              when its job was created, by `time.monotonic()`; None: unknown, or the job has tokens already
    first_token_seconds  from then until the first token; None: it is not of this attempt
    """

    def __init__(self, created: float | None = None) -> None:
        self._created = created
        self._first: float | None = None
        self._last = 0.0
        self._later_tokens = 0
        self.first_token_seconds: float | None = None

    def add(self, tokens: int) -> Mapping[str, Any]:
        """Note that tokens were generated now. Returns the fields of the event with the first ones of the job."""
        if not tokens:
            return {}
        self._last = time.monotonic()
        if self._first is not None:
            self._later_tokens += tokens
            return {}
        self._first = self._last
        if self._created is None:
            return {}
        self.first_token_seconds = round(self._first - self._created, 4)
        return {EXTENSION_FIELD: {FIRST_TOKEN: self.first_token_seconds}}

    @property
    def tokens_per_second(self) -> float | None:
        """The speed of the tokens after the first ones; None without any."""
        if self._first is None or not self._later_tokens:
            return None
        seconds = self._last - self._first
        return self._later_tokens / seconds if seconds > 0 else None


def first_token_of(history: Iterable[Event]) -> float | None:
    """Return how long after its job's creation the first token came; None: unknown, or there is none."""
    first = next((event for event in history if event.tokens), None)
    if first is None:
        return None
    seconds: float | None = (orjson.loads(first.data).get(EXTENSION_FIELD) or {}).get(FIRST_TOKEN)
    return seconds

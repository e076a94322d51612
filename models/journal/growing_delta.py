"""The text delta of a journal that is not sent yet, which later deltas extend."""

from collections.abc import Mapping, Sequence
from typing import Any


class GrowingDelta:
    """A delta of a type and payload, with its texts, tokens and log probabilities so far, and more fields."""

    __slots__ = ("fields", "logprobs", "parts", "payload", "tokens", "type")

    def __init__(self, type_: str, payload: Mapping[str, Any]) -> None:
        self.type = type_
        self.payload = payload
        self.parts: list[str] = []
        self.logprobs: list[Mapping[str, Any]] = []
        self.tokens = 0
        self.fields: dict[str, Any] = {}

    def is_alike(self, type_: str, payload: Mapping[str, Any]) -> bool:
        """Return whether a delta of this type and payload extends this one."""
        return self.type == type_ and (self.payload is payload or self.payload == payload)

    def add(self, text: str, tokens: int, logprobs: Sequence[Mapping[str, Any]]) -> None:
        """Extend the delta."""
        self.parts.append(text)
        self.tokens += tokens
        self.logprobs += logprobs

    @property
    def complete_payload(self) -> Mapping[str, Any]:
        """The payload with the whole text."""
        logprobs = {"logprobs": self.logprobs} if self.logprobs else {}
        return {**self.payload, "delta": "".join(self.parts), **logprobs, **self.fields}

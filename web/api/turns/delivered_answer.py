"""Compare an answer that is restarted or rewound with the part of it that was delivered.

A sent chunk cannot be revoked. So when an attempt restarts its answer, or the journal is rewound, nothing is sent until
the new text is as long as the delivered text. If it differs, the stream ends with an error: the client never reads a
mixture of two answers.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

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

"""Write the events of a model's reasoning: as its content, or as its summary if the request asks for one.

Both have the same text, because clients that ask for a summary show only the summary.
"""

from collections.abc import Mapping
from typing import Any

from models.journal.writer import Journal
from models.turns.responses import Response
from pipelines.chat import response_objects
from pipelines.chat.response_types import ItemStatus, ReasoningItem
from pipelines.chat.transcript import ITEM_ADDED, ITEM_DONE, REASONING_DELTA, SUMMARY_DELTA, Step
from pipelines.inference.engine import ReasoningToken

NewEvent = tuple[str, Mapping[str, Any]]


class ReasoningWriter:
    """Journals the reasoning of an answer and continues that of earlier attempts.

    tokens  the number of its tokens so far
    """

    def __init__(self, response: Response, journal: Journal, step: Step, output_index: int) -> None:
        self.tokens = step.reasoning_tokens
        self._item_id = response_objects.reasoning_id(response, step.number)
        self._as_summary = bool((response.request.get("reasoning") or {}).get("summary"))
        self._journal = journal
        self._state = step.reasoning_state
        self._status: ItemStatus = "completed"
        self._pieces = [step.reasoning]
        self._position = {"output_index": output_index}
        index = "summary_index" if self._as_summary else "content_index"
        self._part_position = {"item_id": self._item_id, **self._position, index: 0}

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def has_begun(self) -> bool:
        """Whether the response has the item."""
        return self._state != "none"

    @property
    def is_open(self) -> bool:
        """Whether the item has begun and not ended."""
        return self._state == "in_progress"

    def write(self, token: ReasoningToken) -> None:
        """Journal a piece of the reasoning."""
        if self._state == "none":
            self._journal.write_atomically(self._start_events(), 0)
            self._state = "in_progress"
        text = token.text.replace("\0", "\ufffd")  # Postgres cannot store it
        self._pieces.append(text)
        self.tokens += token.count
        type_ = SUMMARY_DELTA if self._as_summary else REASONING_DELTA
        self._journal.write_text(type_, self._part_position, text, token.count)

    def item(self, status: ItemStatus) -> ReasoningItem:
        """Return the item; one that is not complete gets this status."""
        return self._item(self.text, self._status if self._state == "completed" else status)

    def end(self, status: ItemStatus) -> list[NewEvent]:
        """End the item with this status, unless it has ended, and return the events to journal."""
        if not self.is_open:
            return []
        self._state, self._status = "completed", status
        text, part = self.text, self._part(self.text)
        kind = "reasoning_summary" if self._as_summary else "reasoning"
        part_done = "response.reasoning_summary_part.done" if self._as_summary else "response.content_part.done"
        return [
            (f"response.{kind}_text.done", {**self._part_position, "text": text}),
            (part_done, {**self._part_position, "part": part}),
            (ITEM_DONE, {**self._position, "item": self._item(text, status)}),
        ]

    def _start_events(self) -> list[NewEvent]:
        part_added = "response.reasoning_summary_part.added" if self._as_summary else "response.content_part.added"
        return [
            (ITEM_ADDED, {**self._position, "item": self._item(None, "in_progress")}),
            (part_added, {**self._part_position, "part": self._part("")}),
        ]

    def _part(self, text: str) -> Mapping[str, Any]:
        return {"type": "summary_text" if self._as_summary else "reasoning_text", "text": text}

    def _item(self, text: str | None, status: ItemStatus) -> ReasoningItem:
        return response_objects.reasoning_item(self._item_id, text, status, as_summary=self._as_summary)

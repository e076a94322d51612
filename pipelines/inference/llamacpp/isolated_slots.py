"""Choose the slot of each generation so that no account's prompt speeds up another's.

llama.cpp reuses what a prompt shares with any earlier one, and the time to the first token shows how much. Here each
generation names its slot, and reuses the slot's prompt only if it is of the same owner. Prompts that have left their
slot are not kept, so a conversation that returns after others have taken all slots is read again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from threading import Condition
from typing import Any

#: A rendered prompt.
Messages = Sequence[Mapping[str, str]]


@dataclass(slots=True)
class Slot:
    """A slot, and the owner and the prompt of what it has read; the owner is None where that is not certain.

    reuses  whether the present generation may reuse what the slot has read
    """

    number: int
    owner: str | None = None
    prompt: Messages = ()
    reuses: bool = False

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters of llama.cpp's request."""
        return {"id_slot": self.number, "cache_prompt": self.reuses}

    def shared(self, owner: str | None, prompt: Messages) -> int:
        """Return how many messages of a prompt the slot has read for the same owner."""
        if owner is None or owner != self.owner:
            return 0
        pairs = zip(self.prompt, prompt, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class IsolatedSlots:
    """The free slots, the one that was used last at the end. Many threads may use it at once."""

    def __init__(self, slots: int) -> None:
        self._free = [Slot(number) for number in range(slots)]
        self._changed = Condition()

    @contextmanager
    def take(self, owner: str | None, prompt: Messages, has_begun: Callable[[], bool]) -> Iterator[Slot]:
        """Take the free slot that has read most of the prompt. Waits while none is free.

        owner      None: the prompt shares nothing
        has_begun  whether the slot has begun to read the prompt; before, it has that of its former owner
        """
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            slot = max(self._free, key=lambda free: free.shared(owner, prompt))  # of equals the one used least recently
            self._free.remove(slot)
        slot.reuses = slot.shared(owner, prompt) > 0
        if not slot.reuses:
            slot.owner = None
        try:
            yield slot
        finally:
            if has_begun():
                slot.owner, slot.prompt = owner, prompt
            with self._changed:
                self._free.append(slot)
                self._changed.notify()

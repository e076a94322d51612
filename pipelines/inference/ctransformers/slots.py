"""Lend the copies of the model to generations: each gets the free one that has read most of its prompt."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition

from pipelines.inference.ctransformers.instance import Instance
from pipelines.inference.ctransformers.sampler import Logits

#: Seconds between two calls of `cancelled` while waiting.
POLL_INTERVAL = 0.02


class Slots:
    """The free copies. Many threads may use it at once."""

    def __init__(self, instances: Sequence[Instance], *, isolated: bool) -> None:
        self._free = list(instances)
        self._isolated = isolated
        self._changed = Condition()

    def take(self, tokens: Sequence[int], owner: str | None, cancelled: Callable[[], bool]) -> Instance | None:
        """Take a copy; None once it is cancelled. A copy that may not share its prompt forgets it."""
        while not cancelled():
            with self._changed:
                if self._free or self._changed.wait(POLL_INTERVAL):
                    if not self._free:
                        continue
                    instance = max(self._free, key=lambda free: self._shared(free, tokens, owner))
                    self._free.remove(instance)
                    break
        else:
            return None
        if not self._may_share(instance, owner):
            instance.tokens.clear()
        instance.owner = owner
        return instance

    def give_back(self, instance: Instance, running: "Future[Logits] | None") -> None:
        """Give a copy back, once it has read what it is reading."""
        if running is None:
            self._release(instance)
        else:
            running.add_done_callback(lambda _: self._release(instance))

    def _release(self, instance: Instance) -> None:
        with self._changed:
            self._free.append(instance)
            self._changed.notify()

    def _shared(self, instance: Instance, tokens: Sequence[int], owner: str | None) -> int:
        return instance.shared(tokens) if self._may_share(instance, owner) else 0

    def _may_share(self, instance: Instance, owner: str | None) -> bool:
        return not self._isolated or (owner is not None and instance.owner == owner)

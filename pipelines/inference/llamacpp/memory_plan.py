"""Compute how much memory a model takes, and how many slots fit beside its weights."""

from dataclasses import dataclass

from pipelines.inference.llamacpp.context_size import ModelSize

#: Memory of the process, its buffers, and the system, beside weights and contexts.
RESERVE = 1 << 30


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A model on a machine with `memory` bytes, of its GPUs if it has any."""

    size: ModelSize
    memory: int

    @property
    def available(self) -> int:
        """Bytes for the contexts of all slots; negative where not even the weights fit."""
        return self.memory - RESERVE - self.size.file_bytes

    def context_bytes(self, context: int) -> int:
        """Return the bytes of a slot's context."""
        return context * self.size.token_bytes

    def max_slots(self, context: int) -> int:
        """Return how many slots with this context fit."""
        return max(0, self.available // self.context_bytes(context))

    def max_context(self, slots: int) -> int:
        """Return the largest context that fits for a number of slots, up to the model's own."""
        return max(0, min(self.size.trained_context, self.available // (slots * self.size.token_bytes)))

    def missing(self, slots: int, context: int) -> int:
        """Return how many bytes are too few; 0 where everything fits."""
        return max(0, slots * self.context_bytes(context) - self.available)

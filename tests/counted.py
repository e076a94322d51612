"""What the instruments of this process have counted: tests share them, so they look at differences."""

from collections.abc import Callable

from models.platform.metrics import REGISTRY


def counted(name: str, **labels: str) -> Callable[[], float]:
    """Return a function that returns by how much a sample has grown since this call."""
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    return lambda: (REGISTRY.get_sample_value(name, labels) or 0.0) - before

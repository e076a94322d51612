"""How tests wait for what other threads and processes do: on conditions, never for a time."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two looks.
PAUSE = 0.005


def eventually(condition: Callable[[], T], timeout: float = 20.0) -> T:
    """What the condition says as soon as that is true. Fails when it is not within `timeout` seconds."""
    pause = threading.Event()
    for _ in range(int(timeout / PAUSE)):
        if found := condition():
            return found
        pause.wait(PAUSE)
    found = condition()
    assert found, f"did not come true within {timeout:g} s"
    return found

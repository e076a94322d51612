"""Poll until a condition holds."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], timeout: float = 30.0, *, interval: float = 0.01, what: str = "a condition"
) -> T:
    """Return the first true value of a condition, evaluated every `interval` seconds.

    Raises TimeoutError, which names `what` was waited for, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out after {timeout:g} s waiting for {what}")
        time.sleep(interval)
    return value

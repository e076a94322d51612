"""Poll until a condition holds."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], timeout: float = 30.0, *, interval: float = 0.01, what: str = "the condition"
) -> T:
    """Return the first true value of a condition, evaluated every `interval` seconds.

    Raises TimeoutError after `timeout` seconds, with `what` was waited for.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} was not met within {timeout:g} s")
        time.sleep(interval)
    return value

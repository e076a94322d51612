"""Poll until a condition holds, such as that a server listens."""

import socket
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


def listens(address: tuple[str, int], greeting: bytes = b"", answer: bytes = b"") -> bool:
    """Return whether a server accepts connections, and begins its answer to a greeting with `answer`."""
    try:
        with socket.create_connection(address, timeout=2) as connection:
            connection.sendall(greeting)
            return not answer or connection.recv(len(answer)) == answer
    except OSError:
        return False

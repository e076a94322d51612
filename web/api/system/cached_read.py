"""Reads for metrics that cost the database something: one at a time, and not with each scrape."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: Seconds for which a value is served again.
MAX_AGE = 2.0

#: A slow read is repeated less often, so that reads take at most this share of the time.
MAX_SHARE = 0.05


class CachedRead(Generic[Value]):
    """A read whose value is served again for MAX_AGE seconds or more. Concurrent callers wait for one read."""

    def __init__(self, read: Callable[[], Value], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._value: Value | None = None
        self._expires_at = float("-inf")

    def __call__(self) -> Value:
        """Return the cached value, or read it again if it has expired."""
        with self._lock:
            start = self._clock()
            if self._value is None or start >= self._expires_at:
                self._value = self._read()
                end = self._clock()
                self._expires_at = end + max(MAX_AGE, (end - start) / MAX_SHARE)
            return self._value

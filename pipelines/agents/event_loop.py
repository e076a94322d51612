"""Run coroutines of job threads in one event loop of the process, and stop them when their job stops.

A thread waits for its coroutine, and asks its job every POLL seconds whether to stop. Then it leaves the coroutine
behind, which is cancelled: a server that does not answer, or a look-up of a name, delays nothing.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from functools import cache
from typing import Generic, TypeVar

import anyio

#: Seconds after which a waiting thread asks whether to stop.
POLL = 0.05

Value = TypeVar("Value")


class Stopped(Exception):
    """The job stopped before its coroutine had ended."""


def run(function: Callable[[], Awaitable[Value]], should_stop: Callable[[], bool]) -> Value:
    """Return what the coroutine function returns, or raise what it raises. Raises Stopped.

    should_stop  called in this thread, every POLL seconds; what it raises stops the coroutine, too
    """
    task = _Task(function)
    future = asyncio.run_coroutine_threadsafe(task.run(), _loop())
    try:
        while not future.done():
            if should_stop():
                raise Stopped
            wait([future], POLL)
    finally:
        if not future.done():
            future.add_done_callback(_retrieve)
            _loop().call_soon_threadsafe(task.cancel)
    return future.result()


class _Task(Generic[Value]):
    """A coroutine function that can be cancelled before and while it runs. All methods run in the event loop."""

    def __init__(self, function: Callable[[], Awaitable[Value]]) -> None:
        self._function = function
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False

    async def run(self) -> Value:
        """Call the function. Raises Stopped if it was cancelled."""
        with anyio.CancelScope() as self._scope:
            if not self._cancelled:
                return await self._function()
        raise Stopped

    def cancel(self) -> None:
        """Cancel the function, if it is still running."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()


def _retrieve(future: Future[Value]) -> None:
    """Take the result of a coroutine that was left behind, so that its error is not logged as forgotten."""
    if not future.cancelled():
        future.exception()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="event loop of tools", daemon=True).start()
    return loop

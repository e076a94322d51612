"""The tool `run_python`: run a short program in the sandbox of Monty, an interpreter for a part of Python.

A process of its own runs each program, without files, network, environment and other programs: the interpreter has no
system calls for them. Time, memory and output are bounded inside and outside of it.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING

import anyio

from models.jobs.attempt_context import Attempt
from models.platform.settings import Settings
from pipelines.agents import event_loop
from pipelines.agents.call_results import CallResult, error_result
from pipelines.agents.mcp.values import clean_text, cut_bytes

if TYPE_CHECKING:
    from pydantic_monty import AsyncMontySession, OSPolicy, ResourceLimits

log = logging.getLogger(__name__)

#: Seconds of a program on the processor, and for everything with its process.
TIME_LIMIT, TIMEOUT = 5.0, 15.0

#: Bytes of its memory, and of what it prints.
MEMORY, OUTPUT = 64 << 20, 1 << 20

#: Programs that run at once in this process. Others wait.
CONCURRENT = 2

#: Seconds between two looks whether the process of a program has exited, and after which it is left alone.
REAP_POLL, REAP_TIMEOUT = 0.01, 30.0

LIMITS: "ResourceLimits" = {"max_feed_duration_secs": TIME_LIMIT, "max_memory": MEMORY, "max_suspensions": 100}

#: `sleep` returns at once: a program that waits would hold its place.
POLICY: "OSPolicy" = {"sleep": "zero"}


def run(settings: Settings, attempt: Attempt, code: str) -> CallResult:
    """Run a program. Returns what it printed, and the value of its last expression. Raises the reason to stop."""
    try:
        output, error = event_loop.run(lambda: run_program(code), attempt.should_stop)
    except event_loop.Stopped:
        attempt.check()
        raise
    text = cut_bytes(clean_text(output), settings.tool_output_bytes)
    if error is not None:
        message = "\n".join(part for part in (text, clean_text(error)) if part)
        return error_result(message)
    return CallResult(output=text)


async def run_program(code: str) -> tuple[str, str | None]:
    """Return what a program printed with the value of its last expression, and the error that ended it."""
    from pydantic_monty import (  # with the first call, as the SDK of MCP
        CollectString,
        MontyError,
        MontySyntaxError,
    )

    printed = CollectString(max_bytes=OUTPUT)
    try:
        async with _places(), _sandbox() as session:
            value = await session.feed_run(code, print_callback=printed)
    except MontySyntaxError as error:
        return "", f"SyntaxError: {error}"
    except MontyError as error:
        return printed.output, str(error) or type(error).__name__
    return printed.output if value is None else f"{printed.output}{value!r}", None


@asynccontextmanager
async def _sandbox() -> AsyncIterator["AsyncMontySession"]:
    """Start a sandbox in a process of its own, and wait until that has gone.

    A cancel lets Monty kill the process without waiting for it. Its runtime does that later, but the first time only
    with the next sandbox, until which the process would be a zombie of this one.
    """
    from pydantic_monty import AsyncMonty

    pid = None
    try:
        async with AsyncExitStack() as stack:
            with anyio.CancelScope(shield=True):  # a start that is cancelled has a process without a known id
                pool = await stack.enter_async_context(AsyncMonty(max_processes=1, request_timeout=TIMEOUT))
                session = await stack.enter_async_context(pool.checkout(limits=LIMITS, os_policy=POLICY))
            pid = session.worker_pid
            yield session
    finally:
        if pid is not None:
            await _reap(pid)


async def _reap(pid: int) -> None:
    """Wait until a child process that is being killed has exited, and remove its entry; also after a cancel."""
    with anyio.move_on_after(REAP_TIMEOUT, shield=True) as limit:
        while not _has_gone(pid):
            await anyio.sleep(REAP_POLL)
    if limit.cancelled_caught:
        log.error("The sandbox process %d has not exited %g s after its program was stopped", pid, REAP_TIMEOUT)


def _has_gone(pid: int) -> bool:
    """Return whether a child process has exited. Without waiting."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # Monty has waited for it
        return True


@cache
def _places() -> anyio.CapacityLimiter:
    """Return the limit of concurrent programs. Called in the event loop that all calls share."""
    return anyio.CapacityLimiter(CONCURRENT)

"""The tool `run_python`: run a short program in the sandbox of Monty, an interpreter for a part of Python.

A process of its own runs each program, without files, network, environment and other programs: the interpreter has no
system calls for them. Time, memory and output are bounded inside and outside of it.
"""

from functools import cache
from typing import TYPE_CHECKING

import anyio

from models.jobs.attempt_context import Attempt
from models.platform.settings import Settings
from pipelines.agents import event_loop
from pipelines.agents.call_results import CallResult, error_result
from pipelines.agents.mcp.values import clean_text, cut_bytes

if TYPE_CHECKING:
    from pydantic_monty import OSPolicy, ResourceLimits

#: Seconds of a program on the processor, and for everything with its process.
TIME_LIMIT, TIMEOUT = 5.0, 15.0

#: Bytes of its memory, and of what it prints.
MEMORY, OUTPUT = 64 << 20, 1 << 20

#: Programs that run at once in this process. Others wait.
CONCURRENT = 2

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
        AsyncMonty,
        CollectString,
        MontyError,
        MontySyntaxError,
    )

    printed = CollectString(max_bytes=OUTPUT)
    try:
        async with (
            _places(),
            AsyncMonty(max_processes=1, request_timeout=TIMEOUT) as pool,
            pool.checkout(limits=LIMITS, os_policy=POLICY) as session,
        ):
            value = await session.feed_run(code, print_callback=printed)
    except MontySyntaxError as error:
        return "", f"SyntaxError: {error}"
    except MontyError as error:
        return printed.output, str(error) or type(error).__name__
    return printed.output if value is None else f"{printed.output}{value!r}", None


@cache
def _places() -> anyio.CapacityLimiter:
    """Return the limit of concurrent programs. Called in the event loop that all calls share."""
    return anyio.CapacityLimiter(CONCURRENT)

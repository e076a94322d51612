"""The actors of the tools pool, which calls other servers and loads no model."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.object_store import ObjectStore
from pipelines.agents import approval_gate, tool_call, tool_lists
from tasks.job_runner import JobRunner

#: Threads, of which an account uses a quarter. A call is almost entirely waiting for a server.
THREADS = 32


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    call_tool = partial(tool_call.run, runner.settings, ObjectStore.open(runner.settings))
    runner.declare("tool.call", Handler(run=call_tool, end=tool_call.end))
    runner.declare("tool.list", Handler(run=partial(tool_lists.run, runner.settings), end=plain_ending))
    runner.declare("approval.wait", Handler(run=approval_gate.run, end=plain_ending))
    return {"tools": THREADS}

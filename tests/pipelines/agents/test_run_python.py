"""`run_python` runs programs in a sandbox, which bounds their time, memory and output and gives them nothing else."""

import subprocess
import sys
import threading
import time
from contextlib import suppress

import orjson
import psutil
import pytest

from models.platform.errors import Cancelled
from pipelines.agents import run_python, tool_call
from tests.pipelines.agents.conftest import call_job

PLATFORM = {"type": "mcp", "server_label": "sangha"}


@pytest.fixture
def run(tool_jobs, start):
    """`run(code)` → the result of a call."""

    def run(code):
        arguments = orjson.dumps({"code": code}).decode()
        return tool_jobs.run(call_job(start(PLATFORM), "run_python", arguments, "sangha"))

    return run


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("1 + 1", "2"),
        ("print('a')\nprint('b')", "a\nb\n"),
        ("print('sum:')\nsum(n * n for n in range(10))", "sum:\n285"),
        ("import math, json, re\nround(math.pi, 2)", "3.14"),
        ("'a\\x00b'", "'a\\x00b'"),
        ("print('a\\x00b')", "ab\n"),
    ],
)
def test_a_program_returns_what_it_prints_and_its_last_value(run, code, output):
    assert run(code) == {"output": output, "error": None, "in_doubt": False}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("print('before')\nraise ValueError('x')", "before"),
        ("x = 'a' * 10**9", "MemoryError"),
        ("x = []\nwhile True: x.append('y' * 1000)", "MemoryError"),
        ("10 ** 10 ** 8", "MemoryError"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("open('/etc/passwd').read()", "PermissionError"),
        ("import os\nos.environ", "not supported"),
        ("import os\nos.system('id')", ""),
        ("import socket", "ModuleNotFoundError"),
        ("import subprocess", "ModuleNotFoundError"),
        ("import ctypes", "ModuleNotFoundError"),
        ("__import__('os')", ""),
        ("().__class__.__bases__[0].__subclasses__()", ""),
        ("print('x' * 2_000_000)", "MemoryError"),
    ],
)
def test_a_program_that_fails_or_wants_more_is_an_error(run, code, error):
    result = run(code)

    assert result["error"]["type"] == "mcp_tool_execution_error"
    assert error in result["error"]["content"][0]["text"]


def test_a_program_without_end_is_stopped(run, monkeypatch):
    monkeypatch.setitem(run_python.LIMITS, "max_feed_duration_secs", 0.2)

    begun = time.monotonic()
    result = run("while True: pass")

    assert "TimeoutError" in result["error"]["content"][0]["text"]
    assert time.monotonic() - begun < 5


def test_sleep_returns_at_once(run):
    begun = time.monotonic()

    assert run("import time\ntime.sleep(100)\n'awake'")["output"] == "'awake'"

    assert time.monotonic() - begun < 5


def test_a_cancelled_program_ends_at_once_with_its_process(tool_jobs, start):
    # Given
    arguments = orjson.dumps({"code": "while True: pass"}).decode()
    attempt = tool_jobs.begin(call_job(start(PLATFORM), "run_python", arguments, "sangha"))
    stopped = []

    def stop():
        end = time.monotonic() + 10
        while not sandboxes() and time.monotonic() < end:
            time.sleep(0.01)
        stopped.append(time.monotonic())
        attempt.stop("cancelled")

    threading.Thread(target=stop, daemon=True).start()

    # When
    with pytest.raises(Cancelled):
        tool_call.run(tool_jobs.settings, tool_jobs.objects, attempt)

    # Then
    assert time.monotonic() - stopped[0] < 0.1
    end = time.monotonic() + 5
    while sandboxes() and time.monotonic() < end:
        time.sleep(0.01)
    assert not sandboxes()


#: Cancels the first program of a process, and prints what is left of its sandbox.
FIRST_CANCEL = """
import time
from pipelines.agents import event_loop, run_python
from tests.pipelines.agents.test_run_python import sandboxes

begun = time.monotonic()
try:
    event_loop.run(lambda: run_python.run_program("while True: pass"), lambda: bool(sandboxes()))
except event_loop.Stopped:
    pass
while sandboxes() and time.monotonic() < begun + 10:
    time.sleep(0.01)
print(sandboxes())
"""


def test_the_first_cancelled_program_of_a_process_leaves_no_zombie():
    # Monty's runtime handles no signals before its first orphan: every second such zombie used to stay.
    command = [sys.executable, "-c", FIRST_CANCEL]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["[]"] * 4


def sandboxes():
    """Return the processes of sandboxes."""
    return [each for each in psutil.Process().children(recursive=True) if "monty" in _name(each)]


def _name(process):
    """Return the name of a process; empty if it has just exited."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def test_the_tool_can_be_turned_off(tool_jobs, run):
    tool_jobs.settings = tool_jobs.settings.model_copy(update={"run_python": "off"})

    assert "has no tool" in run("1")["error"]["content"][0]["text"]

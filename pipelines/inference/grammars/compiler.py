"""Have callers' schemas and grammars checked by a child process, and remember the verdicts.

The child starts with the first schema that is new, stays for later ones, and is replaced after it was killed.
"""

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from models.platform.errors import Unavailable

log = logging.getLogger(__name__)

#: Seconds of CPU time for everything that one request has to compile. A usual schema takes 1 to 5 ms. llama.cpp
#: compiles accepted grammars again between two batches, so this is also about the longest that other slots wait.
BUDGET = 0.5

#: Seconds that a request waits for the child, on a clock: the machine may be busy.
TIMEOUT = 20.0

#: Bytes that the child may add to its address space: 400 properties take 10 MB, half a second of compiling 50 MB.
MEMORY = 512 << 20

#: Verdicts that are remembered, of at most 5 kB each.
MAX_VERDICTS = 4096

#: The folder that contains `pipelines`.
ROOT = Path(__file__).parents[3]

TOO_COMPLEX = f"it is too complex: together with what precedes it, compiling takes more than {BUDGET:g} seconds"
TOO_LARGE = "it is too complex: compiling it takes too much memory"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a schema or grammar.

    error    why it can't be enforced, or None
    ignored  regular expressions of the schema that can't be enforced
    seconds  the CPU time that compiling took
    """

    error: str | None
    ignored: tuple[str, ...]
    seconds: float


class ChildDied(Exception):
    """The child exited with this code before it had answered; negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Compiler:
    """Checks schemas and grammars in one child at a time. Can be used by several threads."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = memory
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._verdicts_lock = threading.Lock()

    def check(self, tasks: Sequence[Mapping[str, Any]], budget: float = BUDGET) -> list[Verdict]:
        """Return the verdicts of the tasks in order, up to the first with an error.

        The CPU time of all of them counts against the budget, also of those that were compiled before.
        Raises Unavailable when the child cannot be used.
        """
        keys = [_key(task) for task in tasks]
        if any(self._known(key) is None for key in keys):
            with self._turn():
                self._compile(tasks, keys, budget)
        return list(self._spend(keys, budget))

    def close(self) -> None:
        """Kill the child."""
        with self._lock:
            self._stop()

    def _spend(self, keys: Sequence[bytes], budget: float) -> Iterator[Verdict]:
        for key in keys:
            verdict = self._known(key) or Verdict(TOO_COMPLEX, (), budget)
            budget -= verdict.seconds
            if verdict.error is None and budget < 0:
                verdict = Verdict(TOO_COMPLEX, (), verdict.seconds)
            yield verdict
            if verdict.error is not None:
                return

    def _compile(self, tasks: Sequence[Mapping[str, Any]], keys: Sequence[bytes], budget: float) -> None:
        """Compile what is not known, until the budget is spent."""
        known = {key: verdict for key in keys if (verdict := self._known(key)) is not None}
        left = budget - sum(verdict.seconds for verdict in known.values())
        new = {key: task for key, task in zip(keys, tasks, strict=True) if key not in known}
        if not new or left <= 0:
            return
        done = 0
        try:
            for key, verdict in zip(new, self._ask(list(new.values()), left), strict=False):
                self._remember(key, verdict)
                done += 1
        except ChildDied as death:
            error = TOO_COMPLEX if death.code == -signal.SIGPROF else TOO_LARGE
            log.warning("Rejected a schema: its compiler exited with %d after %d of %d", death.code, done, len(new))
            if done == 0 and left == budget:  # not only because of what preceded it
                self._remember(next(iter(new)), Verdict(error, (), budget))
            elif error is TOO_LARGE:
                self._remember(list(new)[done], Verdict(error, (), budget))

    def _ask(self, tasks: list[Mapping[str, Any]], seconds: float) -> Iterator[Verdict]:
        """Yield the child's verdicts. Raises ChildDied and Unavailable."""
        child = self._running_child()
        assert child.stdin is not None
        assert child.stdout is not None
        timer = threading.Timer(TIMEOUT, child.kill)
        timer.start()
        try:
            child.stdin.write(orjson.dumps({"seconds": seconds, "tasks": tasks}) + b"\n")
            child.stdin.flush()
            for _ in tasks:
                answer = orjson.loads(child.stdout.readline() or b"null")
                if answer is None:
                    raise self._death()
                yield Verdict(answer["error"], tuple(answer["ignored"]), answer["seconds"])
        except OSError:
            raise self._death() from None
        finally:
            timer.cancel()

    def _death(self) -> Exception:
        code = self._stop()
        if code == -signal.SIGKILL:  # by the timer or by the kernel, for want of memory: not the schema's fault
            return Unavailable("The schema could not be checked in time. Retry later.", retry_after=5)
        return ChildDied(code)

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._stop()
        if self._child is None:
            self._child = self._start()
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "pipelines.inference.grammars.child", str(self._memory)]
        try:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
            )
        except OSError as error:
            raise Unavailable(f"The compiler of schemas cannot be started: {error}", retry_after=5) from None

    def _stop(self) -> int:
        child, self._child = self._child, None
        if child is None:
            return 0
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.close()
        with suppress(OSError):
            child.stdin.close()
        return _wait(child)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for the child to be free. Raises Unavailable."""
        if not self._lock.acquire(timeout=TIMEOUT):
            raise Unavailable("Too many new schemas are being checked. Retry later.", retry_after=5)
        try:
            yield
        finally:
            self._lock.release()

    def _known(self, key: bytes) -> Verdict | None:
        with self._verdicts_lock:
            if key in self._verdicts:
                self._verdicts.move_to_end(key)
            return self._verdicts.get(key)

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        with self._verdicts_lock:
            self._verdicts[key] = verdict
            while len(self._verdicts) > MAX_VERDICTS:
                self._verdicts.popitem(last=False)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a child whose input has ended; kill it if it does not exit."""
    try:
        return child.wait(2)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _key(task: Mapping[str, Any]) -> bytes:
    return blake2b(orjson.dumps(task), digest_size=16).digest()


@cache
def compiler() -> Compiler:
    """Return this process's compiler. Its child ends with the process."""
    instance = Compiler()
    atexit.register(instance.close)
    return instance

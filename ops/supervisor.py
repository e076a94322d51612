"""Keeps parts alive: starts them in stages, restarts what dies, and stops all in the reverse order.

A part that dies is started again at once; one that keeps dying waits longer each time. A part that never once became
ready is given up soon, with its own last words: a wrong model path is not mended by trying again.
"""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from models.platform.errors import ConfigurationError, SanghaError, Unavailable
from ops.process import ChildProcess, Service

#: Seconds between two looks at the children.
TICK = 0.05

#: A life shorter than this many seconds counts as a failure to start.
SHORT_LIFE = 10.0

#: Seconds before the restart of a part that died 1, 2, 3 … times in a row soon after its start.
DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: How often a part that was never ready may die.
TRIES = 3

#: The exit code of a process that was told something wrong: the same again ends alike.
MISCONFIGURED = 2

#: Seconds after which a person is told what a start waits for.
PATIENCE = 15.0

#: Seconds that a stage gets to end by itself.
GRACE = 15.0

#: Characters of a log line that a person is shown.
WIDTH = 200


class Watched:
    """A child and what the supervisor knows of its past."""

    def __init__(self, child: ChildProcess, on_death: Callable[[int], None] | None) -> None:
        self.child = child
        self.on_death = on_death
        self.ready = False
        self.was_ready = False
        self.failures = 0
        self.next_start: float | None = 0.0

    @property
    def age(self) -> float:
        """Seconds since the last start."""
        return time.monotonic() - self.child.started


class Supervisor:
    """Watches parts from the thread that calls it; `say` prints a line for the person in front of it."""

    def __init__(self, run_folder: Path, log_folder: Path, say: Callable[[str], None]) -> None:
        self.run_folder = run_folder
        self.log_folder = log_folder
        self.say = say
        self.stages: list[list[Watched]] = []
        self._asked = 0
        self._since_bound = time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._asked > 0

    def request_stop(self, *_: object) -> None:
        """Ask for the end; asked a second time, for an end at once. Fit to be a signal handler."""
        self._asked += 1

    def start(self, parts: Sequence[Service], on_death: Callable[[int], None] | None = None) -> None:
        """Start a stage and return when all of it is ready, or when the end was asked for.

        Raises ConfigurationError or Unavailable with one line when a part can't be started.
        """
        stage = [Watched(ChildProcess(part, self.run_folder, self.log_folder), on_death) for part in parts]
        self.stages.append(stage)
        remind = time.monotonic() + PATIENCE
        while not self.stopping and not all(watched.ready for watched in stage):
            self._look()
            if time.monotonic() > remind:
                self._remind(stage)
                remind += PATIENCE
            time.sleep(TICK / 2)

    def watch(self) -> None:
        """Keep everything alive until the end is asked for."""
        while not self.stopping:
            self._look()
            time.sleep(TICK)

    def stop(self) -> None:
        """Stop the stages, the last first; within a stage, parts are told in their order and end together."""
        for stage in reversed(self.stages):
            for watched in stage:
                watched.child.signal(watched.child.service.stop_signal)
            self._await_end(stage)
            for watched in stage:
                watched.child.service.close()
        self.stages.clear()

    def _await_end(self, stage: Sequence[Watched]) -> None:
        deadline = time.monotonic() + GRACE
        while any(watched.child.running for watched in stage):
            if time.monotonic() > deadline or self._asked > 1:
                break
            time.sleep(TICK / 2)
        for watched in stage:
            if watched.child.running:
                self.say(f"{watched.child.name} did not end in time: killed")
                watched.child.kill()
            watched.child.clear()

    def _remind(self, stage: Sequence[Watched]) -> None:
        for watched in stage:
            if not watched.ready:
                self.say(f"  still waiting for {watched.child.name}: {watched.child.log.last_line()}")

    def _look(self) -> None:
        for stage in self.stages:
            for watched in stage:
                self._look_at(watched)
        if time.monotonic() - self._since_bound > 10:
            self._bound_logs()

    def _look_at(self, watched: Watched) -> None:
        if watched.child.running:
            self._greet(watched)
            self._overhear(watched)
        elif watched.next_start is None:
            self._mourn(watched)
        elif time.monotonic() >= watched.next_start:
            self._start(watched)

    def _start(self, watched: Watched) -> None:
        try:
            watched.child.start()
        except (SanghaError, OSError) as error:
            self._fail(watched, str(error), final=isinstance(error, ConfigurationError))
        else:
            watched.next_start = None

    def _greet(self, watched: Watched) -> None:
        """Notice that a part has become ready, or has lived long enough for its past to be forgotten."""
        if watched.ready:
            if watched.failures and watched.age > SHORT_LIFE:
                watched.failures = 0
        elif watched.child.ready():
            self.say(f"  {watched.child.name:<18}ready  {watched.age:.1f} s")
            watched.ready = watched.was_ready = True

    def _mourn(self, watched: Watched) -> None:
        """Clear up after a death, tell who wants to know, and plan what follows."""
        child, code = watched.child, watched.child.exit_code or 0
        self._overhear(watched)
        child.clear()
        if watched.on_death is not None:
            threading.Thread(target=watched.on_death, args=(child.pid,), daemon=True).start()
        if watched.age > SHORT_LIFE:
            watched.failures = 0
        said = f": {child.log.last_line()}" if code > 0 else ""
        self._fail(watched, f"{how_it_ended(code)}{said}", final=code == MISCONFIGURED)

    def _fail(self, watched: Watched, why: str, *, final: bool) -> None:
        """Plan the next start, or give up a part that was never ready."""
        watched.ready = False
        watched.failures += 1
        if not watched.was_ready and (final or watched.failures >= TRIES):
            kind = ConfigurationError if final else Unavailable
            raise kind(f"{watched.child.name} does not start: {why}")
        delay = DELAYS[min(watched.failures, len(DELAYS)) - 1]
        watched.next_start = time.monotonic() + delay
        self.say(f"{watched.child.name} died ({why}): starting it again{f' in {delay:g} s' if delay else ''}")

    def _overhear(self, watched: Watched) -> None:
        """Show what a part warns of."""
        pattern = watched.child.service.console_pattern
        if pattern is not None:
            for line in watched.child.log.fresh(pattern)[:5]:
                self.say(f"{watched.child.name}: {brief(line)}")

    def _bound_logs(self) -> None:
        self._since_bound = time.monotonic()
        for stage in self.stages:
            for watched in stage:
                watched.child.log.bound()


def brief(line: str) -> str:
    """A line of a log (see `ops/logs.py`) for a person: its message, and of a traceback the last line."""
    message, _, traceback = line.partition("\\nTraceback")
    raised = traceback.rstrip().removesuffix("\\n").rpartition("\\n")[2]
    return shortened(f"{shortened(message, WIDTH // 2)} ({raised})" if raised else message, WIDTH)


def shortened(text: str, width: int) -> str:
    """The text, or as much of it as fits."""
    return text if len(text) <= width else f"{text[: width - 2]} …"


def how_it_ended(code: int) -> str:
    """`exit code 1`, or `killed by SIGKILL`."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

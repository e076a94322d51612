"""A child process: how it is started, watched and ended, and what it left in its log.

Every child dies with its parent (see `ops/launch.py`), leads a session of its own so that Ctrl-C in the terminal
reaches only the parent, and writes its pid to RUN/NAME.pid. Start children from a thread that lives as long as they
should: Linux ties a child's life to the thread that made it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from models.platform.errors import Unavailable
from ops.child_log import Log

LAUNCH = Path(__file__).with_name("launch.py")


class Service(Protocol):
    """What a supervisor has to know of a part: a server, or one of Sangha's own processes."""

    name: str
    #: Ends the part gracefully.
    stop_signal: signal.Signals
    #: What the kernel sends when the parent is killed.
    orphan_signal: signal.Signals
    #: The folder of a part that refuses to run as root.
    unprivileged_folder: Path | None
    #: Which lines of its log a person should see.
    console_pattern: re.Pattern[str] | None

    def prepare(self) -> None:
        """Make what the part needs before each start. Raises ConfigurationError with one line."""

    def command(self) -> list[str]:
        """The program and its arguments; it stays in the foreground."""

    def environment(self) -> Mapping[str, str]:
        """What is added to the environment."""

    def ready(self, pid: int) -> bool:
        """Whether the part with this pid answers."""

    def close(self) -> None:
        """End what the part keeps beside its process."""


class ChildProcess:
    """One part and, while it runs, its process."""

    def __init__(self, part: Service, run_folder: Path, log_folder: Path) -> None:
        self.service = part
        self.name = part.name
        self.pid_file = run_folder / f"{part.name}.pid"
        self.log = Log(log_folder / f"{part.name}.log")
        self.started = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the process, or of the last one; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the number of the signal that killed it."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Prepare the part and start it. Raises ConfigurationError when it can't be."""
        self.service.prepare()
        self.log.mark()
        command = launcher_command(self.service.command(), self.service.orphan_signal, self.service.unprivileged_folder)
        with self.log.open() as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | dict(self.service.environment()),
                start_new_session=True,
            )
        self.started = time.monotonic()
        self.pid_file.write_text(f"{self.pid}\n")

    def ready(self) -> bool:
        """Whether the process lives and answers."""
        return self.running and self.service.ready(self.pid)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the part answers. Raises Unavailable with the last line of its log."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            if not self.running or time.monotonic() > deadline:
                raise Unavailable(f"{self.name} does not start: {self.log.last_line()}")
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process lives."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def stop(self, grace: float = 20.0) -> int | None:
        """End the process: gracefully, and after `grace` seconds by force. Returns its exit code."""
        self.signal(self.service.stop_signal)
        return self.wait(grace)

    def wait(self, grace: float) -> int | None:
        """Wait `grace` seconds for the end, then kill."""
        if self._process is None:
            return None
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
        self.clear()
        return self._process.returncode

    def kill(self) -> None:
        """End the process as kill -9 does, and wait until it is gone."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def clear(self) -> None:
        """After the end: remove what is left of its session, and its pid file."""
        if self._process is not None:
            kill_session(self._process.pid)
        self.pid_file.unlink(missing_ok=True)


def launcher_command(
    command: Sequence[str], orphan_signal: signal.Signals, unprivileged_folder: Path | None = None
) -> list[str]:
    """The command that runs another as a child that dies with this process."""
    conditions = [str(os.getpid()), str(int(orphan_signal)), str(unprivileged_folder or "-")]
    return [sys.executable, "-I", "-S", str(LAUNCH), *conditions, *command]


def kill_session(leader: int) -> None:
    """Kill what a dead leader of a session left running."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return

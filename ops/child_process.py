"""Start, watch and stop a service as a child process.

A child is killed with its parent (see `ops/launcher.py`), leads a session of its own so that Ctrl-C in the terminal
reaches only the parent, and has its pid in RUN/NAME.pid. Start children from a thread that lives as long as they
should: Linux sends the parent-death signal when the thread that started the child ends.
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
from ops.child_log import ChildLog

#: Seconds that a service has to stop before it is killed: longer than the slowest shutdown of a worker, which waits for
#: its threads, its consumers, the journal, the relay, the heartbeat and the database one after another.
STOP_TIMEOUT = 50.0

LAUNCHER = Path(__file__).with_name("launcher.py")


class Service(Protocol):
    """What a supervisor can run: a server, or one of Sangha's own processes."""

    name: str
    #: Stops the service gracefully.
    stop_signal: signal.Signals
    #: Sent by the kernel when the parent is killed.
    orphan_signal: signal.Signals
    #: The data folder of a service that refuses to run as root.
    unprivileged_folder: Path | None
    #: Log lines that are shown on the supervisor's console.
    console_pattern: re.Pattern[str] | None

    def prepare(self) -> None:
        """Create what the service needs, before each start. Raises ConfigurationError."""

    def command(self) -> list[str]:
        """Return the program and its arguments; it must stay in the foreground."""

    def environment(self) -> Mapping[str, str]:
        """Return the variables that are added to the environment."""

    def ready(self, pid: int) -> bool:
        """Return whether the process with this pid accepts requests."""

    def close(self) -> None:
        """Release what the service holds besides its process."""


class ChildProcess:
    """A service and, while it runs, its process."""

    def __init__(self, service: Service, run_folder: Path, log_folder: Path) -> None:
        self.service = service
        self.name = service.name
        self.pid_file = run_folder / f"{service.name}.pid"
        self.log = ChildLog(log_folder / f"{service.name}.log")
        self.started = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the running or the last process; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while the process runs; the negative number of the signal that killed it."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Prepare the service and start its process. Raises ConfigurationError when it cannot be prepared."""
        self.service.prepare()
        self.log.mark_start()
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
        """Return whether the process runs and accepts requests."""
        return self.running and self.service.ready(self.pid)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the service is ready. Raises Unavailable with the last line of its log."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            if not self.running or time.monotonic() > deadline:
                raise Unavailable(f"{self.name} does not start: {self.log.last_line()}")
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process is running."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def stop(self, grace: float = STOP_TIMEOUT) -> int | None:
        """Stop the process gracefully, or kill it after `grace` seconds. Returns its exit code."""
        self.signal(self.service.stop_signal)
        return self.wait(grace)

    def wait(self, grace: float) -> int | None:
        """Wait `grace` seconds for the process to exit, then kill it. Returns its exit code."""
        if self._process is None:
            return None
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
        self.clear()
        return self._process.returncode

    def kill(self) -> None:
        """Kill the process with SIGKILL and wait until it has exited."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def clear(self) -> None:
        """Kill what is left of the exited process's session and delete its pid file."""
        if self._process is not None:
            kill_session(self._process.pid)
        self.pid_file.unlink(missing_ok=True)


def launcher_command(
    command: Sequence[str], orphan_signal: signal.Signals, unprivileged_folder: Path | None = None
) -> list[str]:
    """Wrap a command so that it is killed when this process dies.

    unprivileged_folder  data folder of a program that refuses to run as root
    """
    options = [str(os.getpid()), str(int(orphan_signal)), str(unprivileged_folder or "-")]
    return [sys.executable, "-I", "-S", str(LAUNCHER), *options, *command]


def kill_session(leader: int) -> None:
    """Kill the processes that a session leader has left running."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return

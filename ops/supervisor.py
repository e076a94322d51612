"""Keep services alive: start them in stages, restart those that exit or freeze, and stop them in reverse order.

A service that exits is restarted at once; one that exits repeatedly soon after its start is delayed longer each time.
One that lives but has not responded for a minute is killed, and so restarted (see `ops/liveness.py`).
A service that has never been ready is not restarted after a few failed starts, and the last line of its log is shown:
another start does not repair a wrong model path.
"""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from models.platform.errors import ConfigurationError, SanghaError, Unavailable
from ops.child_process import STOP_TIMEOUT, ChildProcess, Service
from ops.error_reports import report
from ops.exit_codes import MISCONFIGURED
from ops.liveness import CHECK_INTERVAL, MAX_FAILURES, LivenessCheck, Responsive
from ops.messages import shorten_log_line

log = logging.getLogger(__name__)

#: Seconds between two polls of the children.
POLL_INTERVAL = 0.05

#: A service that exits within this many seconds of its start counts as a failed start.
MIN_UPTIME = 10.0

#: Seconds before the restart of a service after 1, 2, 3 … failed starts in a row.
RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: Failed starts after which a service that was never ready is no longer restarted.
MAX_FAILED_STARTS = 3

#: Seconds after which the console names the services that are not ready yet.
REMINDER_INTERVAL = 15.0

#: Seconds between two checks of the log files' sizes.
LOG_ROTATION_INTERVAL = 10.0

#: Log lines of a service that are shown on the console per poll.
MAX_CONSOLE_LINES = 5


class SupervisedChild:
    """A child process and its history of starts."""

    def __init__(self, child: ChildProcess, on_exit: Callable[[int], None] | None) -> None:
        self.child = child
        self.on_exit = on_exit
        self.ready = False
        self.was_ready = False
        self.failed_starts = self.starts = 0
        self.next_start: float | None = 0.0
        self.liveness: LivenessCheck | None = None

    @property
    def uptime(self) -> float:
        """Seconds since the last start."""
        return time.monotonic() - self.child.started

    def start_liveness_check(self) -> None:
        """Check from now on whether the process responds, if its service can find out."""
        if isinstance(self.child.service, Responsive):
            self.liveness = LivenessCheck(self.child.service, self.child.pid)

    def stop_liveness_check(self) -> None:
        """Stop checking the process."""
        if self.liveness is not None:
            self.liveness.stop()
            self.liveness = None


class Supervisor:
    """Supervises services from the calling thread; `print_line` writes a line to the console."""

    def __init__(self, run_folder: Path, log_folder: Path, print_line: Callable[[str], None]) -> None:
        self.run_folder = run_folder
        self.log_folder = log_folder
        self.print_line = print_line
        self.stages: list[list[SupervisedChild]] = []
        self._stop_requests = 0
        self._logs_rotated_at = time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._stop_requests > 0

    def restarts(self) -> dict[tuple[str, ...], float]:
        """Return how often each process of the stages was restarted."""
        return {(each.child.name,): float(max(0, each.starts - 1)) for stage in list(self.stages) for each in stage}

    def request_stop(self, *_: object) -> None:
        """Request a stop; a second request kills at once. Can be installed as a signal handler."""
        self._stop_requests += 1

    def start(self, services: Sequence[Service], on_exit: Callable[[int], None] | None = None) -> None:
        """Start a stage and return when all of it is ready, or when a stop was requested.

        on_exit  called in a thread of its own with the pid of each process that exits

        Raises ConfigurationError or Unavailable when a service cannot be started.
        """
        stage = [SupervisedChild(ChildProcess(each, self.run_folder, self.log_folder), on_exit) for each in services]
        self.stages.append(stage)
        next_reminder = time.monotonic() + REMINDER_INTERVAL
        while not self.stopping and not all(supervised.ready for supervised in stage):
            self._poll()
            if time.monotonic() > next_reminder:
                self._print_waiting(stage)
                next_reminder += REMINDER_INTERVAL
            time.sleep(POLL_INTERVAL / 2)

    def watch(self) -> None:
        """Restart what exits until a stop is requested."""
        while not self.stopping:
            self._poll()
            self._await_change()

    def _await_change(self) -> None:
        """Wait until a child exits, at most POLL_INTERVAL."""
        pids = [supervised.child.pid for stage in self.stages for supervised in stage if supervised.child.running]
        with ExitStack() as files:
            poller = select.poll()
            for pid in pids:
                file = os.pidfd_open(pid)
                files.callback(os.close, file)
                poller.register(file, select.POLLIN)
            poller.poll(POLL_INTERVAL * 1000)

    def stop(self) -> None:
        """Stop the stages, the last one first; the services of a stage are signalled in order and stop in parallel."""
        for stage in reversed(self.stages):
            for supervised in stage:
                supervised.stop_liveness_check()
                supervised.child.signal(supervised.child.service.stop_signal)
            self._await_exit(stage)
            for supervised in stage:
                supervised.child.service.close()
        self.stages.clear()

    def _await_exit(self, stage: Sequence[SupervisedChild]) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT
        while any(supervised.child.running for supervised in stage):
            if time.monotonic() > deadline or self._stop_requests > 1:
                break
            time.sleep(POLL_INTERVAL / 2)
        for supervised in stage:
            if supervised.child.running:
                self.print_line(f"{supervised.child.name} did not stop in time: killed")
                supervised.child.kill()
            supervised.child.clear()

    def _print_waiting(self, stage: Sequence[SupervisedChild]) -> None:
        for supervised in stage:
            if not supervised.ready:
                self.print_line(f"  waiting for {supervised.child.name}: {supervised.child.log.last_line()}")

    def _poll(self) -> None:
        for stage in self.stages:
            for supervised in stage:
                self._poll_child(supervised)
        if time.monotonic() - self._logs_rotated_at > LOG_ROTATION_INTERVAL:
            self._rotate_logs()

    def _poll_child(self, supervised: SupervisedChild) -> None:
        if supervised.child.running:
            self._on_running(supervised)
            self._print_log_lines(supervised)
        elif supervised.next_start is None:
            self._on_exit(supervised)
        elif time.monotonic() >= supervised.next_start:
            self._start(supervised)

    def _start(self, supervised: SupervisedChild) -> None:
        try:
            supervised.child.start()
        except (SanghaError, OSError) as error:
            self._on_failure(supervised, str(error), final=isinstance(error, ConfigurationError))
        else:
            supervised.next_start = None
            supervised.starts += 1

    def _on_running(self, supervised: SupervisedChild) -> None:
        """Note that a child has become ready, or has run long enough for its failed starts to be forgotten."""
        if supervised.ready:
            if supervised.failed_starts and supervised.uptime > MIN_UPTIME:
                supervised.failed_starts = 0
            if supervised.liveness is not None and supervised.liveness.failed:
                self._kill_unresponsive(supervised)
        elif supervised.child.ready():
            self._on_ready(supervised)

    def _kill_unresponsive(self, supervised: SupervisedChild) -> None:
        """Kill a process that lives but does not respond; the next poll restarts it."""
        seconds = MAX_FAILURES * CHECK_INTERVAL
        self.print_line(f"{supervised.child.name} has not responded for {seconds:g} s: killed")
        log.error("Killing %s (pid %d): no response for %g s", supervised.child.name, supervised.child.pid, seconds)
        supervised.stop_liveness_check()
        supervised.child.kill()

    def _on_ready(self, supervised: SupervisedChild) -> None:
        self.print_line(f"  {supervised.child.name:<18}ready  {supervised.uptime:.1f} s")
        supervised.ready = supervised.was_ready = True
        supervised.start_liveness_check()

    def _on_exit(self, supervised: SupervisedChild) -> None:
        """Clean up after a process that has exited, call `on_exit` and schedule the restart."""
        child, code = supervised.child, supervised.child.exit_code or 0
        supervised.stop_liveness_check()
        self._print_log_lines(supervised)
        child.clear()
        if supervised.on_exit is not None:
            threading.Thread(target=supervised.on_exit, args=(child.pid,), daemon=True).start()
        if supervised.uptime > MIN_UPTIME:
            supervised.failed_starts = 0
        last_line = f": {child.log.last_line()}" if code > 0 else ""
        self._on_failure(supervised, f"{describe_exit(code)}{last_line}", final=code == MISCONFIGURED)

    def _on_failure(self, supervised: SupervisedChild, reason: str, *, final: bool) -> None:
        """Schedule the next start, or stop restarting a service that was never ready."""
        supervised.ready = False
        supervised.failed_starts += 1
        if not supervised.was_ready and (final or supervised.failed_starts >= MAX_FAILED_STARTS):
            error_type = ConfigurationError if final else Unavailable
            raise error_type(f"{supervised.child.name} does not start: {reason}")
        delay = RESTART_DELAYS[min(supervised.failed_starts, len(RESTART_DELAYS)) - 1]
        supervised.next_start = time.monotonic() + delay
        self.print_line(f"{supervised.child.name} exited ({reason}): restarting{f' in {delay:g} s' if delay else ''}")
        report(f"{supervised.child.name} exited: {reason}")

    def _print_log_lines(self, supervised: SupervisedChild) -> None:
        pattern = supervised.child.service.console_pattern
        if pattern is not None:
            for line in supervised.child.log.new_lines(pattern)[:MAX_CONSOLE_LINES]:
                self.print_line(f"{supervised.child.name}: {shorten_log_line(line)}")

    def _rotate_logs(self) -> None:
        self._logs_rotated_at = time.monotonic()
        for stage in self.stages:
            for supervised in stage:
                supervised.child.log.rotate()


def describe_exit(code: int) -> str:
    """`exit code 1`, or `killed by SIGKILL`."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

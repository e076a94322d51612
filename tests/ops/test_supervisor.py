"""The supervisor restarts services, stops restarting those that never become ready, and leaves no process behind."""

import inspect
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from bench.harness.waiting import wait_until
from models.journal.writer import JournalWriter
from models.platform.database import CHECKOUT_TIMEOUT
from models.platform.errors import ConfigurationError, Unavailable
from ops import supervisor as module
from ops.supervisor import Supervisor
from tasks import worker
from tasks.heartbeat import LISTEN_INTERVAL
from tests.ops.scripts import FAILS, HAS_A_CHILD, IGNORES_TERM, MISCONFIGURED, RUNS, Script, has_exited

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class Console(list[str]):
    """The lines that the supervisor has printed."""

    def has(self, text: str) -> bool:
        return any(text in line for line in self)


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def supervisor(folders: tuple[Path, Path], console: Console) -> Iterator[Supervisor]:
    supervisor = Supervisor(*folders, console.append)
    yield supervisor
    supervisor.stop()


def poll_until(supervisor: Supervisor, condition: object) -> None:
    """Poll the children until a condition holds."""
    assert callable(condition)

    def poll() -> object:
        supervisor._poll()
        return condition()

    wait_until(poll)


def test_killed_service_is_restarted_at_once(
    supervisor: Supervisor, console: Console, tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    # Given a service that is ready
    service = Script("worker-light", tmp_path, RUNS)
    exited_pids: list[int] = []
    supervisor.start([service], exited_pids.append)
    first = int((folders[0] / "worker-light.pid").read_text())
    # When it is killed
    os.kill(first, signal.SIGKILL)
    poll_until(supervisor, lambda: service.starts == 2 and service.ready_file.exists())
    # Then it has a new pid, on_exit got the old one, and the console has one line about it
    assert int((folders[0] / "worker-light.pid").read_text()) != first
    wait_until(lambda: exited_pids == [first])
    assert console.has("worker-light exited (killed by SIGKILL): restarting")


def test_an_exit_ends_the_wait_for_the_next_poll(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a supervisor that polls every hour
    supervisor.start([Script("worker-light", tmp_path, RUNS)])
    monkeypatch.setattr(module, "POLL_INTERVAL", 3600)
    waiting = threading.Thread(target=supervisor._await_change, daemon=True)
    waiting.start()
    wait_until(lambda: any("pidfd" in target for target in open_files()))

    # When a service is killed
    os.kill(supervisor.stages[0][0].child.pid, signal.SIGKILL)

    # Then it looks at once
    waiting.join(20)
    assert not waiting.is_alive()


def open_files() -> Iterator[str]:
    """Yield what the file descriptors of this process refer to."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{name}")


def test_restarts_of_a_failing_service_are_delayed(supervisor: Supervisor, console: Console, tmp_path: Path) -> None:
    # Given a service that was ready once
    service = Script("web", tmp_path, RUNS)
    supervisor.start([service])
    # When it exits right after each start
    service.program = FAILS
    os.kill(supervisor.stages[0][0].child.pid, signal.SIGKILL)
    poll_until(supervisor, lambda: service.starts == 3)
    # Then it is restarted after a delay, without a limit
    assert console.has("web exited (exit code 1: SANGHA_MODEL is wrong): restarting in 0.5 s")


@pytest.mark.parametrize(
    ("program", "error", "starts"), [(FAILS, Unavailable, 3), (MISCONFIGURED, ConfigurationError, 1)]
)
def test_service_that_was_never_ready_is_no_longer_restarted(
    supervisor: Supervisor, tmp_path: Path, program: str, error: type[Exception], starts: int
) -> None:
    service = Script("worker-inference", tmp_path, program)
    with pytest.raises(error, match=r"worker-inference does not start: .*SANGHA_MODEL is wrong"):
        supervisor.start([service])
    assert service.starts == starts


def test_stop_ends_the_last_stage_first_and_leaves_no_pid_file(
    supervisor: Supervisor, tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    # Given two stages of services, each of which records its end
    ends = tmp_path / "ends"
    notes = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(ends)!r}, 'a').write(sys.argv[1].split('/')[-1] + ' '); sys.exit()\n"
        "signal.signal(15, end); open(sys.argv[1], 'w'); time.sleep(600)"
    )
    supervisor.start([Script("postgres", tmp_path, notes)])
    supervisor.start([Script("worker", tmp_path, notes), Script("web", tmp_path, notes)])
    # When the supervisor stops
    supervisor.stop()
    # Then the first stage stopped last
    assert ends.read_text().split()[-1] == "postgres.ready"
    # And no pid file is left
    assert not list(folders[0].glob("*.pid"))


def test_children_of_a_killed_service_are_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    # Given a service with a child of its own
    supervisor.start([Script("worker", tmp_path, HAS_A_CHILD)])
    pid = supervisor.stages[0][0].child.pid
    [grandchild] = psutil.Process(pid).children()
    # When the service is killed
    os.kill(pid, signal.SIGKILL)
    poll_until(supervisor, lambda: supervisor.stages[0][0].child.pid != pid)
    # Then so is its child
    wait_until(lambda: has_exited(grandchild.pid))


def test_service_that_ignores_term_is_killed(
    supervisor: Supervisor, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT", 0.2)
    supervisor.start([Script("web", tmp_path, IGNORES_TERM)])
    supervisor.stop()
    assert console.has("web did not stop in time: killed")


def test_slowest_shutdown_of_a_worker_is_not_killed() -> None:
    # Given the longest that each step of a worker's shutdown waits
    threads_and_consumers = 2 * worker.STOP_TIMEOUT
    journal = 2 * inspect.signature(JournalWriter.stop).parameters["timeout"].default  # to drain, then to end
    relay = 5.0
    heartbeat = 2 * 2 * LISTEN_INTERVAL + CHECKOUT_TIMEOUT  # two threads, then the worker's row
    closing_of_the_database = 2.0
    # Then the supervisor waits longer
    slowest = threads_and_consumers + journal + relay + heartbeat + closing_of_the_database
    assert slowest < module.STOP_TIMEOUT


def test_second_stop_request_kills_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    # Given a service that ignores TERM, and two Ctrl-C
    supervisor.start([Script("web", tmp_path, IGNORES_TERM)])
    supervisor.request_stop()
    supervisor.request_stop()
    # When it stops, then it does not wait for the timeout
    stopped = threading.Timer(module.STOP_TIMEOUT / 2, lambda: None)
    stopped.start()
    supervisor.stop()
    assert stopped.is_alive()
    stopped.cancel()


def test_large_log_is_rotated(supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ops import child_log

    monkeypatch.setattr(child_log, "MAX_SIZE", 1000)
    service = Script(
        "web", tmp_path, "import sys, time; print('x' * 5000, flush=True); open(sys.argv[1], 'w'); time.sleep(9)"
    )
    supervisor.start([service])
    log = supervisor.stages[0][0].child.log
    log.rotate()
    assert log.path.stat().st_size == 0
    assert log.path.with_name("web.log.1").stat().st_size > 5000

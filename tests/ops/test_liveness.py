"""A process that lives but does not respond is killed and restarted; what cannot be found out counts as life."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.harness.waiting import wait_until
from models.jobs import workers
from models.platform.database import Database
from models.platform.settings import Settings
from ops import liveness, supervisor
from ops.liveness import LivenessCheck
from ops.sangha_services import SchedulerProcess, WebProcess, WorkerProcess
from ops.supervisor import Supervisor
from scheduler.liveness import liveness_file, noting_life
from tests.ops.scripts import Script

#: A server that answers every connection.
ANSWERS = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
open(sys.argv[2], "w")
server.serve_forever()
"""


class Web(Script):
    """A server as a service that is asked as the web process is."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__("web", folder, ANSWERS)
        self.port = port
        self.responds = WebProcess(Settings(host="127.0.0.1", port=port)).responds

    def command(self) -> list[str]:
        python, flag, program, ready_file = super().command()
        return [python, flag, program, str(self.port), ready_file]


@pytest.fixture
def port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        free: int = unused.getsockname()[1]
        return free


@pytest.fixture
def console() -> list[str]:
    return []


@pytest.fixture
def supervised(folders: tuple[Path, Path], console: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor that checks often."""
    monkeypatch.setattr(liveness, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(liveness, "MAX_FAILURES", 2)
    instance = Supervisor(*folders, console.append)
    yield instance
    instance.stop()


@pytest.mark.usefixtures("leaves_nothing")
def test_a_frozen_web_process_is_killed_and_restarted(
    supervised: Supervisor, console: list[str], tmp_path: Path, port: int
) -> None:
    # Given a web process that answers, though with an error
    service = Web(tmp_path, port)
    supervised.start([service])
    child = supervised.stages[0][0].child
    frozen = child.pid

    # When it freezes
    os.kill(frozen, signal.SIGSTOP)

    def restarted() -> bool:
        supervised._poll()
        return service.starts == 2 and supervised.stages[0][0].ready

    wait_until(restarted, timeout=60)

    # Then another process has taken its place, and the console says why
    assert child.pid != frozen
    assert any("web has not responded for" in line and "killed" in line for line in console)
    assert service.responds(child.pid)


def test_a_process_is_unresponsive_after_consecutive_failures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "CHECK_INTERVAL", 0.001)
    answers = iter([False] * (liveness.MAX_FAILURES - 1) + [True] + [False] * (liveness.MAX_FAILURES - 1))
    finished = False

    class Service:
        def responds(self, pid: int) -> bool:
            nonlocal finished
            answer = next(answers, None)
            finished = finished or answer is None
            return bool(answer)

    check = LivenessCheck(Service(), 1)
    wait_until(lambda: finished)
    wait_until(lambda: check.failed)
    check.stop()


def test_a_worker_responds_while_it_renews_its_lease(settings: Settings, database: Database) -> None:
    worker, pid = WorkerProcess("worker-light", settings, ["memory"]), 4_000_001
    with database.connection() as connection:
        workers.register(connection, "a worker", host=socket.gethostname(), pid=pid, pools=["memory"], threads={})
        assert worker.responds(pid)
        connection.execute("UPDATE workers SET seen_at = now() - interval '1 minute' WHERE name = 'a worker'")
        assert not worker.responds(pid)
        workers.unregister(connection, "a worker")
    assert not worker.responds(pid)


def test_a_worker_is_not_blamed_for_the_database(port: int) -> None:
    settings = Settings(database_url=f"postgresql://nobody@127.0.0.1:{port}/none")
    assert WorkerProcess("worker-light", settings, ["memory"]).responds(1)
    assert not WorkerProcess("worker-light", settings, ["memory"]).ready(1)


def test_the_scheduler_responds_while_its_sweeper_ends_passes(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    scheduler = SchedulerProcess(settings)

    def fail() -> None:
        raise ValueError("a fault")

    # Without the folder of `sangha up` a pass writes nothing
    noting_life(settings, list)()
    assert not liveness_file(settings).exists()
    liveness_file(settings).parent.mkdir()
    # A pass counts once, also one that fails
    noting_life(settings, list)()
    assert scheduler.responds(1)
    assert not scheduler.responds(1)
    with pytest.raises(ValueError, match="a fault"):
        noting_life(settings, fail)()
    assert scheduler.responds(1)
    assert not scheduler.responds(1)


def test_the_console_names_the_time_of_the_checks() -> None:
    assert supervisor.MAX_FAILURES * supervisor.CHECK_INTERVAL >= 60

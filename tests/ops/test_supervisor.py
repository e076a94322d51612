"""The supervisor: restarts, gives up, tells of deaths, and leaves nothing behind."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.harness.waiting import wait_until
from models.platform.errors import ConfigurationError, Unavailable
from ops import supervisor as module
from ops.messages import MAX_LINE_WIDTH, shorten_log_line
from ops.supervisor import Supervisor
from tests.ops.scripts import FAILS, HAS_A_CHILD, LIVES, MISCONFIGURED, STUBBORN, Script, gone

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class Said(list[str]):
    """What a person would have read."""

    def has(self, text: str) -> bool:
        return any(text in line for line in self)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def supervisor(folders: tuple[Path, Path], said: Said) -> Iterator[Supervisor]:
    supervisor = Supervisor(*folders, said.append)
    yield supervisor
    supervisor.stop()


def look_until(supervisor: Supervisor, condition: object) -> None:
    """Have the supervisor look at its children until a condition holds."""
    assert callable(condition)

    def look() -> object:
        supervisor._poll()
        return condition()

    wait_until(look)


def test_a_killed_part_is_back_with_a_new_pid(
    supervisor: Supervisor, said: Said, tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    # Given a part that is ready
    part = Script("worker-light", tmp_path, LIVES)
    deaths: list[int] = []
    supervisor.start([part], deaths.append)
    first = int((folders[0] / "worker-light.pid").read_text())
    # When it is killed
    os.kill(first, signal.SIGKILL)
    look_until(supervisor, lambda: part.starts == 2 and part.mark.exists())
    # Then it is back at once, its death was told, and one line says so
    assert int((folders[0] / "worker-light.pid").read_text()) != first
    wait_until(lambda: deaths == [first])
    assert said.has("worker-light exited (killed by SIGKILL): restarting")


def test_a_part_that_keeps_dying_waits_longer_each_time(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    # Given a part that was ready once
    part = Script("web", tmp_path, LIVES)
    supervisor.start([part])
    # When from now on it dies at once
    part.program = FAILS
    os.kill(supervisor.stages[0][0].child.pid, signal.SIGKILL)
    look_until(supervisor, lambda: part.starts == 3)
    # Then it is tried again after a wait, for ever
    assert said.has("web exited (exit code 1: SANGHA_MODEL is wrong): restarting in 0.5 s")


@pytest.mark.parametrize(
    ("program", "error", "starts"), [(FAILS, Unavailable, 3), (MISCONFIGURED, ConfigurationError, 1)]
)
def test_a_part_that_never_was_ready_is_given_up(
    supervisor: Supervisor, tmp_path: Path, program: str, error: type[Exception], starts: int
) -> None:
    part = Script("worker-inference", tmp_path, program)
    with pytest.raises(error, match=r"worker-inference does not start: .*SANGHA_MODEL is wrong"):
        supervisor.start([part])
    assert part.starts == starts


def test_stop_ends_the_last_stage_first_and_leaves_no_pid_file(
    supervisor: Supervisor, tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    # Given servers, and parts that need them, each of which notes its end
    ends = tmp_path / "ends"
    notes = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(ends)!r}, 'a').write(sys.argv[1].split('/')[-1] + ' '); sys.exit()\n"
        "signal.signal(15, end); open(sys.argv[1], 'w'); time.sleep(600)"
    )
    supervisor.start([Script("postgres", tmp_path, notes)])
    supervisor.start([Script("worker", tmp_path, notes), Script("web", tmp_path, notes)])
    # When all is stopped
    supervisor.stop()
    # Then the server was last
    assert ends.read_text().split()[-1] == "postgres.ready"
    # And no pid file is left
    assert not list(folders[0].glob("*.pid"))


def test_what_a_part_started_goes_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    # Given a part with a child of its own
    supervisor.start([Script("worker", tmp_path, HAS_A_CHILD)])
    pid = supervisor.stages[0][0].child.pid
    [grandchild] = psutil.Process(pid).children()
    # When the part is killed
    os.kill(pid, signal.SIGKILL)
    look_until(supervisor, lambda: supervisor.stages[0][0].child.pid != pid)
    # Then so is its child
    wait_until(lambda: gone(grandchild.pid))


def test_a_part_that_will_not_end_is_killed(
    supervisor: Supervisor, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT", 0.2)
    supervisor.start([Script("web", tmp_path, STUBBORN)])
    supervisor.stop()
    assert said.has("web did not stop in time: killed")


def test_asked_twice_it_ends_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    # Given a part that ignores TERM, and two Ctrl-C
    supervisor.start([Script("web", tmp_path, STUBBORN)])
    supervisor.request_stop()
    supervisor.request_stop()
    # When all is stopped, then it takes no grace
    stopped = threading.Timer(module.STOP_TIMEOUT / 2, lambda: None)
    stopped.start()
    supervisor.stop()
    assert stopped.is_alive()
    stopped.cancel()


def test_a_long_log_is_cut(supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ops import child_log

    monkeypatch.setattr(child_log, "MAX_SIZE", 1000)
    part = Script(
        "web", tmp_path, "import sys, time; print('x' * 5000, flush=True); open(sys.argv[1], 'w'); time.sleep(9)"
    )
    supervisor.start([part])
    log = supervisor.stages[0][0].child.log
    log.rotate()
    assert log.path.stat().st_size == 0
    assert log.path.with_name("web.log.1").stat().st_size > 5000


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("ERROR web: broke", "ERROR web: broke"),
        (r"ERROR web: broke\nTraceback (most …):\n  File\nKeyError: 'a'", "ERROR web: broke (KeyError: 'a')"),
        (r"ERROR web: broke\nTraceback (most …):\n  File\nKeyError: 'a'\n", "ERROR web: broke (KeyError: 'a')"),
    ],
)
def test_of_a_traceback_a_person_sees_the_last_line(line: str, shown: str) -> None:
    assert shorten_log_line(line) == shown


def test_a_long_line_is_shortened_and_keeps_what_was_raised() -> None:
    shown = shorten_log_line("m" * 3000 + r"\nTraceback\n  File\nKeyError: 'a'")
    assert len(shown) <= MAX_LINE_WIDTH
    assert shown.endswith("(KeyError: 'a')")

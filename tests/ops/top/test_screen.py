"""`sangha top` in a terminal, in a pipe, and as JSON."""

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl

import pytest

from models.platform.database import Database
from models.platform.errors import Unavailable
from models.platform.settings import Settings
from ops.top import screen
from ops.top.screen import _next_view
from ops.top.view import View
from tests.ops.commands import sangha
from tests.ops.top.test_view import SNAPSHOT

#: How a program begins and ends to use the whole terminal.
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def environment(installation: Database, settings: Settings) -> dict[str, str]:
    """The environment of a command that shows the test's servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SANGHA_", "NO_COLOR"))}
    return kept | {
        "SANGHA_DATABASE_URL": installation.dsn,
        "SANGHA_REDIS_URL": settings.redis_address,
        "SANGHA_ENGINE": "scripted",
        "SANGHA_PORT": "1",
        "TERM": "xterm-256color",
    }


class Terminal:
    """A terminal of 80 by 24 in which `sangha top` runs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.controller, self.terminal = pty.openpty()
        ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.terminal)
        command = [sys.executable, "-m", "ops", "top", "--interval", "0.5"]
        self.process = subprocess.Popen(
            command, env=environment, stdin=self.terminal, stdout=self.terminal, stderr=self.terminal
        )
        self.output = b""

    def wait_for(self, text: bytes, seconds: float = 30) -> None:
        """Read until the output has a text."""
        end = time.monotonic() + seconds
        while text not in self.output:
            readable, _, _ = select.select([self.controller], [], [], max(0, end - time.monotonic()))
            assert readable, self.output
            self.output += os.read(self.controller, 65_536)

    def press(self, key: bytes) -> None:
        os.write(self.controller, key)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.controller)
        os.close(self.terminal)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(environment)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("end", ["q", "interrupt", "terminate"])
def test_view_is_redrawn_until_it_ends_and_restores_the_terminal(terminal: Terminal, end: str) -> None:
    # Given a view that has been drawn and redrawn
    terminal.wait_for(ENTER)
    terminal.wait_for(b"no jobs")
    terminal.output = b""
    terminal.press(b"x")
    terminal.wait_for(b"no jobs")
    # When it is ended
    if end == "q":
        terminal.press(b"q")
    else:
        terminal.process.send_signal(signal.SIGINT if end == "interrupt" else signal.SIGTERM)
    terminal.wait_for(LEAVE)
    # Then the command has succeeded, and the terminal is as it was
    assert terminal.process.wait(10) == 0
    assert termios.tcgetattr(terminal.terminal) == terminal.before
    assert b"Traceback" not in terminal.output


def test_output_to_a_pipe_is_printed_once_without_colours(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "ops", "top"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)

    assert "sangha top" in done.stdout
    assert "\x1b" not in done.stdout
    assert "! No worker is running" in done.stdout


def test_json_has_the_snapshot_and_its_problems(
    dead_job: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "ONCE", 0.05)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    printed = json.loads(sangha("top", "--json").output)

    assert printed["problems"][0] == "No worker is running"
    assert printed["dead"] == 1
    assert {pool["pool"] for pool in printed["pools"]} >= {"inference", "tools"}
    assert printed["streams"] is None


def test_last_state_stays_while_postgres_is_unavailable() -> None:
    # Given a view, and a reader whose database cannot be reached
    class Reader:
        def read(self) -> None:
            raise Unavailable("cannot connect to the database")

    # When the next one is read
    view = _next_view(Reader(), View(SNAPSHOT))  # type: ignore[arg-type]
    # Then the last state is shown, with the reason
    assert view.snapshot is SNAPSHOT
    assert view.problem == "No newer state: cannot connect to the database"


def test_command_without_a_database_ends_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "ONCE", 0.05)
    monkeypatch.setenv("SANGHA_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    monkeypatch.setenv("SANGHA_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)

    result = sangha("top", "--once")

    assert result.exit_code != 0
    assert "cannot connect to the database" in result.output

"""Given a machine that lacks what the peer needs, when it is to be installed, then one line says what is missing."""

import sys
from pathlib import Path

import pytest

from bench.peers import environment
from bench.peers.environment import NotInstalled, interpreter, version


def says(tmp_path: Path, *lines: str, code: int = 0) -> Path:
    """A program that says some lines."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in lines) + f"exit {code}\n")
    program.chmod(0o755)
    return program


def test_a_python_says_its_version_and_what_is_none_says_nothing(tmp_path: Path) -> None:
    assert version(Path(sys.executable)) == sys.version_info[:2]
    assert version(says(tmp_path, "no such version", code=127)) == ()
    assert version(tmp_path / "missing") == ()


def test_no_python_that_is_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "OLDEST", (3, 99))
    with pytest.raises(NotInstalled, match=r"^Aegra needs Python 3\.99 or later, and there is none on this machine$"):
        interpreter()


def test_what_can_not_be_installed_says_why_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    broken = says(tmp_path, "WARNING: retrying", "ERROR: no network", code=1)
    monkeypatch.setattr(environment, "interpreter", lambda: broken)
    for _ in range(2):
        with pytest.raises(NotInstalled, match=r"^Aegra can't be installed here: ERROR: no network$"):
            environment.environment(said.append, tmp_path / "made")
    assert said == ["installing the peer (once, about half a minute)"] * 2


def test_what_is_installed_is_not_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, ran = tmp_path / "peer", list[list[str]]()

    def run(command: list[str]) -> None:
        folder.mkdir(exist_ok=True)
        ran.append(command)

    monkeypatch.setattr(environment, "interpreter", lambda: Path("any"))
    monkeypatch.setattr(environment, "run", run)
    for _ in range(2):
        assert environment.environment(lambda _: None, folder) == folder / "bin" / "python"
    assert [command[2] for command in ran] == ["venv", "pip"]


def test_all_is_pinned() -> None:
    lines = environment.REQUIREMENTS.read_text().splitlines()[1:]
    assert all("==" in line for line in lines)
    assert any(line.startswith("aegra-api==") for line in lines)

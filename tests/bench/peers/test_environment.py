"""Given a machine without what the peer needs, when it is installed, then one line says what is missing."""

import sys
from pathlib import Path

import pytest

from bench.peers import environment
from bench.peers.environment import AEGRA, LITELLM, NotInstalled, Package, interpreter, version


def program(tmp_path: Path, *lines: str, code: int = 0) -> Path:
    """Return a program that prints some lines."""
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in lines) + f"exit {code}\n")
    path.chmod(0o755)
    return path


def test_a_python_has_its_version_and_another_program_none(tmp_path: Path) -> None:
    assert version(Path(sys.executable)) == sys.version_info[:2]
    assert version(program(tmp_path, "no such version", code=127)) == ()
    assert version(tmp_path / "missing") == ()


def test_a_machine_without_a_new_enough_python_is_reported() -> None:
    with pytest.raises(NotInstalled, match=r"^Aegra needs Python 3\.99 or later, and there is none on this machine$"):
        interpreter(Package("Aegra", "aegra", (3, 99)))


def test_a_failed_installation_reports_its_error_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str] = []
    broken = program(tmp_path, "WARNING: retrying", "ERROR: no network", code=1)
    monkeypatch.setattr(environment, "interpreter", lambda _: broken)
    for _ in range(2):
        with pytest.raises(NotInstalled, match=r"^Aegra can't be installed here: ERROR: no network$"):
            environment.environment(reported.append, AEGRA, tmp_path / "made")
    assert reported == ["installing Aegra (once, about half a minute)"] * 2


def test_an_installed_peer_is_not_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, commands = tmp_path / "peer", list[list[str]]()

    def run(command: list[str], title: str) -> None:
        folder.mkdir(exist_ok=True)
        commands.append(command)

    monkeypatch.setattr(environment, "interpreter", lambda _: Path("any"))
    monkeypatch.setattr(environment, "run", run)
    for _ in range(2):
        assert environment.environment(lambda _: None, AEGRA, folder) == folder / "bin" / "python"
    assert [command[2] for command in commands] == ["venv", "pip"]


@pytest.mark.parametrize(("package", "name"), [(AEGRA, "aegra-api"), (LITELLM, "litellm")])
def test_all_requirements_are_pinned(package: Package, name: str) -> None:
    lines = package.requirements.read_text().splitlines()[1:]
    assert all("==" in line for line in lines)
    assert any(line.startswith(f"{name}==") for line in lines)

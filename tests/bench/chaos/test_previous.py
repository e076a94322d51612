"""The previous version: which commit it is, and how its processes are started."""

from pathlib import Path

import pytest

from bench.chaos import previous
from bench.chaos.previous import extract_code, previous_commit, variables
from bench.machine import ROOT

needs_history = pytest.mark.skipif(previous_commit() is None, reason="an archive of the source has no history")


def test_there_is_no_previous_version_without_a_history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(previous, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert previous_commit() is None


@needs_history
def test_an_unknown_commit_falls_back_to_the_one_before_the_newest_migration(tmp_path: Path):
    commit = previous_commit("no-such-commit")
    assert commit is not None

    extract_code(commit, tmp_path)

    newest = max(path.name for path in (ROOT / previous.MIGRATIONS).glob("*.sql"))
    migrations = {path.name for path in (tmp_path / previous.MIGRATIONS).glob("*.sql")}
    assert migrations
    assert newest not in migrations


def test_a_process_of_the_previous_version_gets_only_what_that_version_knows(tmp_path: Path):
    environment = variables(tmp_path)

    assert environment["PYTHONPATH"] == str(tmp_path)
    assert "nonce" not in environment["SANGHA_SCRIPT"]

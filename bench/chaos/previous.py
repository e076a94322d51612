"""The code of the previous version, for processes that run beside those of this one during a rolling deploy."""

import contextlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from bench.chaos.transcripts import RATE, TOKENS
from bench.machine import ROOT

#: The commit of the previous version: with 0017.ended-job-indexes.sql. Change it with each release.
PREVIOUS = "8039e1b"

#: Pools that the previous version does not know.
UNKNOWN_POOLS = frozenset({"billing", "tools", "upstream"})

#: Where migrations are.
MIGRATIONS = "models/migrations"

#: Options of the scripted engine that the previous version knows.
PREVIOUS_SCRIPT = f"tokens={TOKENS},rate={RATE}"


def previous_commit(reference: str = PREVIOUS) -> str | None:
    """Return the hash of the previous version, or of the commit before the newest migration where there is none.

    None without a history, as in an archive of the source.
    """
    added = _git("log", "-1", "--diff-filter=A", "--format=%H", "--", MIGRATIONS)
    for candidate in (reference, f"{added}^"):
        if commit := _git("rev-parse", "--verify", "--quiet", f"{candidate}^{{commit}}"):
            return commit
    return None


def extract_code(commit: str, folder: Path) -> None:
    """Write the files of a commit into a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def variables(code: Path) -> Mapping[str, str]:
    """Return the variables with which a process runs that code, and gets only what that version knows."""
    return {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "SANGHA_SCRIPT": PREVIOUS_SCRIPT}


def migrate(code: Path, dsn: str) -> None:
    """Migrate a database with that code. Raises CalledProcessError."""
    environment = os.environ | variables(code) | {"SANGHA_DATABASE_URL": dsn}
    subprocess.run([sys.executable, "-m", "ops", "migrate"], env=environment, capture_output=True, check=True)


def _git(*arguments: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""

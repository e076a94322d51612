"""Fixtures of the operator's tests."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Database


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of pid files and logs."""
    run, logs = tmp_path / "run", tmp_path / "logs"
    run.mkdir()
    logs.mkdir()
    return run, logs


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Check that the test leaves no child process behind; servers of the session may start processes meanwhile."""
    before = {process.pid for process in psutil.Process().children()}
    yield
    remaining = [process for process in psutil.Process().children() if process.pid not in before]
    assert not remaining


@pytest.fixture
def installation(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """An empty database that the commands use."""
    monkeypatch.setenv("SANGHA_DATABASE_URL", empty_database.dsn)
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)
    return empty_database


@pytest.fixture
def dead_job(installation: Database) -> str:
    """A job without attempts left."""
    job = NewJob(kind="turn.run", account_id="acct_1")
    with installation.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES ('acct_1', 'a test')")
        enqueue(connection, job)
        connection.execute(
            "UPDATE jobs SET state = 'dead', attempt = 5, finished_at = now(), traceback = 'Traceback: it broke',"
            ' error = \'{"message": "it broke"}\' WHERE id = %s',
            (job.id,),
        )
    return job.id

"""`sangha pools` and `sangha dead`, against a real database."""

import pytest
from click.testing import CliRunner, Result

from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Database
from ops.cli import main


@pytest.fixture
def installation(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database of the test's own that the commands work on."""
    monkeypatch.setenv("SANGHA_DATABASE_URL", empty_database.dsn)
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)
    return empty_database


@pytest.fixture
def dead_job(installation: Database) -> str:
    """A job that ran out of attempts."""
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


def sangha(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def state(database: Database, job_id: str) -> str:
    with database.connection() as connection:
        row = connection.execute("SELECT state FROM jobs WHERE id = %s", (job_id,)).fetchone()
    assert row is not None
    return str(row["state"])


def test_pools_shows_each_pool(dead_job: str) -> None:
    lines = sangha("pools").output.splitlines()
    assert lines[0].split() == ["pool", "workers", "threads", "queued", "running", "waiting", "dead", "oldest"]
    assert lines[1].split() == ["inference", "0", "0", "0", "0", "0", "1", "-"]


def test_the_dead_are_listed_and_shown(dead_job: str) -> None:
    listed = sangha("dead", "list").output.splitlines()
    assert listed[1].startswith(dead_job)
    assert listed[1].endswith("it broke")
    assert "Traceback: it broke" in sangha("dead", "show", dead_job).output


def test_a_dead_job_is_replayed(installation: Database, dead_job: str) -> None:
    assert sangha("dead", "replay", dead_job).output == "1 replayed\n"
    assert state(installation, dead_job) == "queued"
    assert sangha("dead", "list").output == "No dead jobs.\n"


def test_all_the_dead_are_discarded(installation: Database, dead_job: str) -> None:
    assert sangha("dead", "discard", "--all").output == "1 discarded\n"
    assert state(installation, dead_job) == "failed"


def test_a_job_that_is_not_dead_is_named(installation: Database) -> None:
    answer = sangha("dead", "replay", "job_1")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("sangha: not replayed: job_1 ")


def test_all_needs_a_word(installation: Database) -> None:
    assert "or --all" in sangha("dead", "discard").stderr

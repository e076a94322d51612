"""`sangha dead` on a real database."""

from models.platform.database import Database
from tests.ops.commands import sangha


def state(database: Database, job_id: str) -> str:
    with database.connection() as connection:
        row = connection.execute("SELECT state FROM jobs WHERE id = %s", (job_id,)).fetchone()
    assert row is not None
    return str(row["state"])


def test_dead_jobs_are_listed_and_shown(dead_job: str) -> None:
    lines = sangha("dead", "list").output.splitlines()
    assert lines[1].startswith(dead_job)
    assert lines[1].endswith("it broke")
    assert "Traceback: it broke" in sangha("dead", "show", dead_job).output


def test_dead_job_is_replayed(installation: Database, dead_job: str) -> None:
    assert sangha("dead", "replay", dead_job).output == "1 replayed\n"
    assert state(installation, dead_job) == "queued"
    assert sangha("dead", "list").output == "No dead jobs.\n"


def test_all_dead_jobs_are_discarded(installation: Database, dead_job: str) -> None:
    assert sangha("dead", "discard", "--all").output == "1 discarded\n"
    assert state(installation, dead_job) == "failed"


def test_job_that_is_not_dead_is_reported(installation: Database) -> None:
    result = sangha("dead", "replay", "job_1")
    assert result.exit_code == 2
    assert result.stderr.startswith("sangha: not replayed: job_1 ")


def test_discarding_all_requires_the_option(installation: Database) -> None:
    assert "or --all" in sangha("dead", "discard").stderr

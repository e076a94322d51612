"""Given rows that the platform wrote, when they are copied in bulk, then the copies count as rows of their own."""

from datetime import timedelta

import pytest

from bench.job_rows import EndedTurns, JobRows, job_rows
from models.jobs import ended_partitions
from models.journal.archive import archive
from models.journal.events import event
from models.platform.database import Database
from models.platform.ids import new_id

IN_THREE_HOURS = timedelta(hours=3)


def count(database: Database, condition: str) -> int:
    with database.connection() as connection:
        row = connection.execute(f"SELECT count(*) AS count FROM {condition}".encode()).fetchone()
    return int(row["count"]) if row else 0


def test_jobs_that_are_due_later_belong_to_as_many_accounts(empty_database: Database):
    with job_rows(empty_database.dsn) as rows:
        rows.spread("meditation.run", 90, 30, IN_THREE_HOURS)

        later = "jobs WHERE account_id <> 'platform' AND run_at > now() + interval '2 hours'"
        assert count(empty_database, later) == 90
        assert count(empty_database, f"(SELECT DISTINCT account_id FROM {later}) AS accounts") == 30


def test_jobs_wait_behind_an_unfinished_one_of_their_conversation(empty_database: Database):
    with job_rows(empty_database.dsn) as rows:
        rows.block("turn.run", 3, 7)

        assert count(empty_database, "jobs WHERE state = 'waiting'") == 3
        assert count(empty_database, "jobs WHERE state = 'queued' AND published_at IS NULL") == 3 * (7 + 1)
        assert count(empty_database, "(SELECT DISTINCT serial_key FROM jobs) AS keys") == 3


def test_ended_jobs_have_events_as_far_as_wanted(empty_database: Database):
    job_id = insert_ended_job(empty_database)
    ended_partitions.create_missing(empty_database)
    with job_rows(empty_database.dsn) as rows:
        rows.end(job_id, EndedTurns(recent=30, moved=50, detailed=20))

        assert rows.detail_bytes(job_id) > 0
        assert count(empty_database, "jobs WHERE state = 'completed'") == 1 + 30
        assert count(empty_database, "job_events") == 1 + 20
        assert count(empty_database, "ended_jobs WHERE events IS NOT NULL") == 1 + 20
        assert count(empty_database, "ended_jobs WHERE events IS NULL AND last_sequence = -1") == 30
        assert count(empty_database, "(SELECT DISTINCT id FROM all_jobs) AS ids") == 1 + 30 + 1 + 50


def test_all_rows_are_removed_at_the_end(empty_database: Database):
    with job_rows(empty_database.dsn) as rows:
        rows.spread("data.erase", 10, 10)

    assert count(empty_database, "jobs") == 0
    assert count(empty_database, "accounts WHERE name = 'copied'") == 0


def test_progress_is_reported(empty_database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.job_rows.CHUNK", 40)
    numbers: list[int] = []

    with job_rows(empty_database.dsn, numbers.append) as rows:
        rows.spread("data.erase", 100, 10)

    assert numbers == [40, 80, 100]


def insert_ended_job(database: Database) -> str:
    job_id = new_id("job")
    with database.connection() as connection, connection.transaction():
        JobRows(connection).spread("data.erase", 1, 1)
        connection.execute(
            "UPDATE jobs SET id = %s, state = 'completed', finished_at = now() WHERE account_id <> 'platform'",
            (job_id,),
        )
        connection.execute("DELETE FROM jobs WHERE id <> %s", (job_id,))
        archive(connection, job_id, [event(0, "response.created", {"job_id": job_id})])
    return job_id

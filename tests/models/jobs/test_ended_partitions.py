"""Weekly partitions of `ended_jobs` are created ahead, and dropped once the time of their jobs is over."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psycopg
import pytest

from models.jobs import ended_partitions
from models.jobs.ended_partitions import create_missing, drop_expired
from models.platform.database import fetch_all, fetch_one

ATTACHED = """
SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'ended_jobs'::regclass ORDER BY 1
"""


def attached(database):
    """Return the names of the weekly partitions."""
    with database.connection() as connection:
        return [row["name"] for row in fetch_all(connection, ATTACHED) if row["name"] != "ended_jobs_kept"]


def exists(database, name):
    with database.connection() as connection:
        return fetch_one(connection, "SELECT to_regclass(%(name)s) AS oid", {"name": name})["oid"] is not None


def let_weeks_pass(monkeypatch, weeks):
    now = datetime.now(UTC) + timedelta(weeks=weeks)
    monkeypatch.setattr(ended_partitions, "_now", lambda connection: now)


def test_partitions_follow_each_other_for_the_longest_retention(empty_database):
    created = create_missing(empty_database)

    days = [datetime.strptime(name, "ended_jobs_%Y%m%d").replace(tzinfo=UTC) for name in created]
    assert attached(empty_database) == created
    assert all(later - earlier == timedelta(days=7) for earlier, later in pairwise(days))
    assert days[0] <= datetime.now(UTC) < days[0] + timedelta(days=7)
    assert days[-1] + timedelta(days=7) > datetime.now(UTC) + timedelta(days=37)


def test_existing_partitions_are_not_created_again(empty_database, monkeypatch):
    first = create_missing(empty_database)
    assert create_missing(empty_database) == []

    let_weeks_pass(monkeypatch, 1)

    (next_week,) = create_missing(empty_database)
    assert attached(empty_database) == [*first, next_week]


def test_creating_and_dropping_wait_for_no_reader(empty_database, monkeypatch):
    """A reader holds its locks until its transaction ends. Detaching waits for it, but blocks no other session."""
    with empty_database.transaction() as reader:
        fetch_all(reader, "SELECT id FROM all_jobs")
        created = create_missing(empty_database)
        assert exists(empty_database, created[0])


def test_expired_partitions_are_dropped_with_their_jobs(empty_database, monkeypatch):
    # Given partitions, of which three are of past weeks
    created = create_missing(empty_database)
    with empty_database.connection() as connection:
        connection.execute(
            "INSERT INTO ended_jobs (id, delete_after, account_id, kind, queue, arguments, state, run_at, depth,"
            " attempt, failures, crashes, created_at, finished_at) SELECT 'job_' || week, now() + week * interval"
            " '7 days', 'acct_1', 'a', 'b', '{}', 'completed', now(), 0, 1, 0, 0, now(), now()"
            " FROM generate_series(0, 4) AS week"
        )
    assert drop_expired(empty_database) == []

    # When three weeks have passed
    let_weeks_pass(monkeypatch, 3)
    dropped = drop_expired(empty_database)

    # Then those are dropped, and the jobs of later weeks are kept
    assert dropped == created[:3]
    assert attached(empty_database) == created[3:]
    with empty_database.connection() as connection:
        assert [row["id"] for row in fetch_all(connection, "SELECT id FROM ended_jobs ORDER BY 1")] == [
            "job_3",
            "job_4",
        ]
    assert not any(exists(empty_database, name) for name in dropped)


@pytest.mark.parametrize("after_detach", [False, True])
def test_an_interrupted_drop_is_completed(empty_database, monkeypatch, after_detach):
    # Given a partition that was detached but not dropped, or whose detachment waits for a reader
    first, *others = create_missing(empty_database)
    detach = f"ALTER TABLE ended_jobs DETACH PARTITION {first} CONCURRENTLY"
    with empty_database.transaction() as reader, empty_database.connection() as connection:
        if after_detach:
            connection.execute(detach)
        else:
            fetch_all(reader, "SELECT id FROM all_jobs")
            connection.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                connection.execute(detach)
            connection.execute("RESET lock_timeout")

    # When expired partitions are dropped the next time
    let_weeks_pass(monkeypatch, 1)

    # Then it is dropped
    assert drop_expired(empty_database) == [first]
    assert attached(empty_database) == others
    assert not exists(empty_database, first)

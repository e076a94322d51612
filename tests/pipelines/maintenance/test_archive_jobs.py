"""Given jobs that ended days ago, when the hourly job runs, then they are in `ended_jobs`."""

from datetime import UTC, datetime, timedelta

import orjson

from models.access import idempotency
from models.accounts import account_exports
from models.accounts.ownership import Access
from models.jobs import ended_partitions, jobs
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.journal.events import event
from models.platform.compatibility import Compatibility
from models.platform.database import fetch_all, fetch_one
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.maintenance import archive_jobs, erase


def insert_ended_job(database, account_id, *, ago="3 days", kind="memory.remember"):
    job = NewJob(kind, account_id, opening=[event(0, "sangha:job.completed", {"text": "a secret"})])
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute(
            "UPDATE jobs SET state = 'completed', finished_at = now() - %s::interval WHERE id = %s", (ago, job.id)
        )
    return job.id


def run(begin, database, **arguments):
    job = NewJob("maintenance.archive_jobs", PLATFORM_ACCOUNT, arguments)
    ending = archive_jobs.run(Compatibility(database), begin(job))
    assert ending.state == "completed"
    return ending.result


def moved(database, job_id):
    """Return whether a job is in `ended_jobs`. It must be in one of the tables."""
    with database.connection() as connection:
        rows = fetch_all(connection, "SELECT id FROM all_jobs WHERE id = %(id)s", {"id": job_id})
        assert len(rows) == 1
        return fetch_one(connection, "SELECT FROM ended_jobs WHERE id = %(id)s", {"id": job_id}) is not None


def test_jobs_that_ended_days_ago_are_moved(database, account, begin, monkeypatch):
    monkeypatch.setattr(archive_jobs, "BATCH", 2)
    old = [insert_ended_job(database, account) for _ in range(5)]
    recent = insert_ended_job(database, account, ago="1 day")

    result = run(begin, database)

    assert result["moved"] >= 5
    assert all(moved(database, job_id) for job_id in old)
    assert not moved(database, recent)


def test_nothing_is_moved_before_the_upgrade_is_finalized(empty_database, begin, database):
    """The previous version reads `jobs` only."""
    with empty_database.connection() as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_code = '0014'")
    old = insert_ended_job(empty_database, PLATFORM_ACCOUNT)

    job = begin(NewJob("maintenance.archive_jobs", PLATFORM_ACCOUNT))
    result = archive_jobs.run(Compatibility(empty_database), job).result

    assert result["moved"] == 0
    assert not moved(empty_database, old)


def test_the_age_is_an_argument(database, account, begin):
    job_id = insert_ended_job(database, account, ago="1 minute")

    run(begin, database, age_seconds=30)

    assert moved(database, job_id)


def test_a_request_is_not_repeated_after_its_job_was_moved(database, account, begin):
    """Keys that the nightly pruning has not deleted yet are deleted first."""
    with database.connection() as connection:
        reservation = idempotency.reserve(connection, account, "a key", b"a request", user_id="user_a")
        connection.execute("UPDATE idempotency_keys SET created_at = now() - interval '3 days'")

    run(begin, database)

    with database.connection() as connection:
        again = idempotency.reserve(connection, account, "a key", b"a request", user_id="user_a")
    assert again.seed != reservation.seed


def test_keys_are_kept_for_less_than_jobs_stay():
    assert idempotency.KEPT_HOURS * 3600 < archive_jobs.MOVED_AFTER


def test_moved_jobs_are_deleted_by_the_week(database, account, begin, monkeypatch):
    # Given a moved job of the platform, which is kept for a week after its end, one of an account, and a turn
    of_platform, of_account = (insert_ended_job(database, owner) for owner in (PLATFORM_ACCOUNT, account))
    turn = insert_ended_job(database, account, kind="turn.run")
    run(begin, database)

    # When weeks pass, and expired partitions are dropped
    left = [drop_expired(database, monkeypatch, weeks) for weeks in (0, 2, 6, 500)]

    # Then each is deleted after its time, and the turn never
    ids = {of_platform, of_account, turn}
    assert [ids & of_week for of_week in left] == [ids, {of_account, turn}, {turn}, {turn}]


def drop_expired(database, monkeypatch, weeks):
    """Drop partitions as so many weeks later; returns the ids of the moved jobs that are left."""
    now = datetime.now(UTC) + timedelta(weeks=weeks)
    with monkeypatch.context() as patch, database.connection() as connection:
        patch.setattr(ended_partitions, "_now", lambda connection: now)
        ended_partitions.drop_expired(database)
        return {row["id"] for row in fetch_all(connection, "SELECT id FROM ended_jobs")}


def test_an_erasure_deletes_moved_jobs(database, account, begin, redis_client, tmp_path):
    job_ids = [insert_ended_job(database, account, kind=kind) for kind in ("memory.remember", "turn.run")]
    run(begin, database)
    recent = insert_ended_job(database, account, ago="1 minute")
    objects = ObjectStore.open(Settings(data_dir=tmp_path))

    attempt = begin(NewJob("data.erase", PLATFORM_ACCOUNT, {"account_ids": [account], "user_ids": []}))
    erase.run(erase.Stores(redis_client, objects), attempt)

    with database.connection() as connection:
        assert [jobs.read(connection, job_id, Access.account(account)) for job_id in (*job_ids, recent)] == [None] * 3


def test_an_export_is_the_same_before_and_after_the_move(database, account, begin, tmp_path):
    job_ids = {insert_ended_job(database, account) for _ in range(3)}
    before = export_files(database, account)

    run(begin, database)

    after = export_files(database, account)
    assert before == after
    assert {row["id"] for row in after["jobs"]} == {row["job_id"] for row in after["job_events"]} == job_ids
    assert all("a secret" in row["events"] for row in after["job_events"])


def export_files(database, account):
    """Return the rows of the export of jobs and their events."""
    with database.transaction() as connection:
        return {name: exported_rows(connection, name, account) for name in ("jobs", "job_events")}


def exported_rows(connection, name, account):
    batches = account_exports.export_rows(connection, name, account)
    return sorted((orjson.loads(orjson.dumps(row)) for batch in batches for row in batch), key=str)

"""Given old records, when the platform prunes, then they are deleted, and all others are kept."""

import io

import pytest

from models.access import api_keys
from models.accounts import accounts, emails, files
from models.accounts.ownership import Access
from models.jobs import effects, jobs
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.memory import meditations
from models.memory.spaces import SpaceKey
from models.platform.errors import NotFound
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.maintenance import prune
from pipelines.maintenance.expired_files import expired_files_job


def sign_up(database, *, days_ago):
    with database.transaction() as connection:
        membership = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        connection.execute(
            "UPDATE users SET created_at = now() - make_interval(days => %s) WHERE id = %s",
            (days_ago, membership.user_id),
        )
    return membership.user_id


def run_prune(begin, folder):
    ending = prune.run(
        ObjectStore.open(Settings(data_dir=folder)),
        None,
        begin(NewJob("maintenance.prune", PLATFORM_ACCOUNT)),
    )
    assert ending.state == "completed"


def insert_ended_job(database, account_id, kind, *, days_ago, state="completed"):
    job = NewJob(kind, account_id)
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute(
            "UPDATE jobs SET state = %s, finished_at = now() - make_interval(days => %s) WHERE id = %s",
            (state, days_ago, job.id),
        )
    return job.id


@pytest.mark.parametrize(
    ("kind", "days_ago", "state", "kept"),
    [
        ("memory.remember", 31, "completed", False),
        ("memory.remember", 29, "completed", True),
        ("email.send", 31, "cancelled", False),
        ("account.export", 31, "dead", True),
        ("turn.run", 400, "completed", True),
    ],
)
def test_ended_jobs_are_kept_for_a_month_and_turns_for_ever(
    database, account, begin, tmp_path, kind, days_ago, state, kept
):
    job_id = insert_ended_job(database, account, kind, days_ago=days_ago, state=state)

    run_prune(begin, tmp_path)

    with database.connection() as connection:
        assert (jobs.read(connection, job_id, Access.account(account)) is not None) is kept


def test_the_parent_of_a_dead_job_is_kept(database, account, begin, tmp_path):
    """Deleting a job deletes its children."""
    parent, dead = (
        insert_ended_job(database, account, kind, days_ago=31, state=state)
        for kind, state in (("meditation.run", "completed"), ("memory.insight", "dead"))
    )
    other_parent, completed = (
        insert_ended_job(database, account, kind, days_ago=31) for kind in ("meditation.run", "memory.insight")
    )
    with database.connection() as connection:
        for child, parent_id in ((dead, parent), (completed, other_parent)):
            connection.execute("UPDATE jobs SET parent_id = %s WHERE id = %s", (parent_id, child))

    run_prune(begin, tmp_path)

    with database.connection() as connection:
        kept = {
            job_id
            for job_id in (parent, dead, other_parent, completed)
            if jobs.read(connection, job_id, Access.account(account))
        }
    assert kept == {parent, dead}


def test_the_job_of_a_meditation_without_an_outcome_is_kept(database, account, begin, tmp_path):
    """A meditation that was cancelled before its start shows its job's state."""
    user_id, meditation_id = sign_up(database, days_ago=1), new_id("med")
    job_id = insert_ended_job(database, account, "meditation.run", days_ago=31, state="cancelled")
    with database.transaction() as connection:
        assert meditations.insert(connection, meditation_id, SpaceKey(account, user_id), job_id=job_id)

    run_prune(begin, tmp_path)

    with database.connection() as connection:
        assert meditations.read(connection, meditation_id, SpaceKey(account, user_id)).status == "cancelled"


def test_more_than_a_batch_is_deleted(database, account, begin, tmp_path, monkeypatch):
    monkeypatch.setattr(prune, "BATCH", 2)
    job_ids = [insert_ended_job(database, account, "memory.remember", days_ago=40) for _ in range(5)]

    run_prune(begin, tmp_path)

    with database.connection() as connection:
        assert [jobs.read(connection, job_id, Access.account(account)) for job_id in job_ids] == [None] * 5


def test_keys_that_ended_long_ago_are_deleted(database, begin, tmp_path):
    # Given keys that were revoked long ago, expired long ago, were revoked recently, and are active
    user_id = sign_up(database, days_ago=200)
    account_query = "SELECT account_id FROM memberships WHERE user_id = %s"
    fields = {"name": "a key", "hint": "sk_…", "scopes": (), "user_id": user_id}
    ends = {"revoked": (100, None), "expired": (None, 100), "recently": (10, None), "active": (None, None)}
    with database.transaction() as connection:
        account_id = connection.execute(account_query, (user_id,)).fetchone()["account_id"]
        keys = {
            name: api_keys.insert(
                connection, key_id=new_id("key"), account_id=account_id, secret_hash=name.encode() * 4,
                expires_at=None, **fields
            ).id
            for name in ends
        }  # fmt: skip
        for name, (revoked, expired) in ends.items():
            connection.execute(
                "UPDATE api_keys SET revoked_at = now() - make_interval(days => %s),"
                " expires_at = now() - make_interval(days => %s) WHERE id = %s",
                (revoked, expired, keys[name]),
            )

    # When the platform prunes
    run_prune(begin, tmp_path)

    # Then only the first two are deleted
    with database.connection() as connection:
        kept = {key.id for key in api_keys.list_keys(connection, account_id)}
    assert kept == {keys["recently"], keys["active"]}


def test_unverified_users_without_data_are_deleted_after_two_months(database, begin, tmp_path):
    recent, lapsed = (sign_up(database, days_ago=days) for days in (1, 60))

    run_prune(begin, tmp_path)

    with database.connection() as connection:
        assert emails.read_user(connection, recent) is not None
        assert emails.read_user(connection, lapsed) is None


@pytest.mark.parametrize(
    ("state", "days_ago", "job_state", "kept"),
    [
        ("done", 91, "completed", False),
        ("failed", 91, None, False),
        ("done", 89, "completed", True),
        ("done", 91, "dead", True),
        ("unknown", 400, "failed", True),
        ("intent", 400, None, True),
    ],
)
def test_effects_are_kept_while_they_are_open_or_prevent_a_second_call(
    database, account, begin, tmp_path, state, days_ago, job_state, kept
):
    # Given an effect whose job has ended in a state or does not exist any more
    job_id = (
        insert_ended_job(database, account, "turn.run", days_ago=1, state=job_state) if job_state else new_id("job")
    )
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO effects (job_id, step, account_id, idempotency_key, request_hash, state, updated_at)"
            " VALUES (%s, 'charge', %s, %s, 'a hash', %s, now() - make_interval(days => %s))",
            (job_id, account, new_id("key"), state, days_ago),
        )

    run_prune(begin, tmp_path)

    with database.connection() as connection:
        assert (effects.read(connection, job_id, "charge") is not None) is kept


def test_expired_files_alone_are_deleted_at_once(database, account, begin, tmp_path):
    # Given the file of an ended import, and a job that ended long ago
    objects = ObjectStore.open(Settings(data_dir=tmp_path))
    kept = insert_ended_job(database, account, "memory.remember", days_ago=100)
    imported = insert_ended_job(database, account, "memory.import", days_ago=0, state="cancelled")
    key = f"{account}/imports/x"
    objects.put(key, io.BytesIO(b"lines"))
    with database.transaction() as connection:
        files.insert(
            connection, new_id("file"), account, job_id=imported, filename="f", purpose=files.IMPORT,
            content_type="text/plain", size=5, object_key=key, days=7,
        )  # fmt: skip
        assert files.expire_ended_imports(connection)

    # When expired files are deleted
    ending = prune.run(objects, None, begin(expired_files_job()))

    # Then the file is gone, and nothing else
    assert ending.result["files"] >= 1
    with pytest.raises(NotFound):
        objects.get(key)
    with database.connection() as connection:
        assert files.stored_bytes(connection, account) == 0
        assert connection.execute("SELECT 1 FROM jobs WHERE id = %s", (kept,)).fetchone()


def test_accounts_of_users_whom_an_earlier_version_verified_leave_the_plan_of_unverified_users(
    database, begin, tmp_path
):
    # Given two accounts with the plan, one of them of a verified user
    with database.transaction() as connection:
        verified, unverified = (
            accounts.create(
                connection,
                email=f"{new_id('me')}@example.com",
                password_hash=None,
                plan_id=accounts.UNVERIFIED_PLAN,
            )
            for _ in range(2)
        )
        connection.execute("UPDATE users SET email_verified_at = now() WHERE id = %s", (verified.user_id,))

    run_prune(begin, tmp_path)

    with database.connection() as connection:
        plans = [
            connection.execute("SELECT plan_id FROM accounts WHERE id = %s", (member.account_id,)).fetchone()["plan_id"]
            for member in (verified, unverified)
        ]
    assert plans == [accounts.DEFAULT_PLAN, accounts.UNVERIFIED_PLAN]


def test_days_of_the_spill_budget_are_kept_for_400_days(database, begin, tmp_path):
    # Given counts of turns of two days, one of them long ago
    queue = new_id("queue")
    with database.connection() as connection:
        for days in (401, 399):
            connection.execute(
                "INSERT INTO turn_counts (turn_day, turn_queue, ended_turns)"
                " VALUES ((now() AT TIME ZONE 'UTC')::date - %s, %s, 7)",
                (days, queue),
            )
            connection.execute(
                "INSERT INTO spill_days (spill_day, upstream) VALUES ((now() AT TIME ZONE 'UTC')::date - %s, %s)",
                (days, queue),
            )
    # When the platform prunes
    run_prune(begin, tmp_path)
    # Then the later day is left
    with database.connection() as connection:
        counts = connection.execute("SELECT turn_day FROM turn_counts WHERE turn_queue = %s", (queue,)).fetchall()
        days = connection.execute("SELECT spill_day FROM spill_days WHERE upstream = %s", (queue,)).fetchall()
    assert (len(counts), len(days)) == (1, 1)

"""Given an account with other members, when one user is erased, then the user's rows are deleted and no others."""

import io

import pytest

from models.accounts import account_data, accounts, files, member_data
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.journal.events import event
from models.platform.errors import Released
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.turns import conversations
from pipelines.maintenance import erase
from pipelines.maintenance.erase import Stores

#: Table → the column with the owner of its rows.
OWNERS = {"conversations": "owner_id", "jobs": "owner_id", "idempotency_keys": "requested_by"}


class Killed(Exception):
    """The process of the worker ends."""


@pytest.fixture
def stores(redis_client, tmp_path):
    return Stores(redis_client, ObjectStore.open(Settings(data_dir=tmp_path)))


@pytest.fixture
def owner(database, stores):
    """The owner of an account, with data of their own."""
    with database.transaction() as connection:
        owner = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash="a hash")
    store_data(database, stores, owner.account_id, owner.user_id)
    return owner


@pytest.fixture
def left(database, stores, owner):
    """The id of a user with data in the owner's account, who has just been closed."""
    with database.transaction() as connection:
        user = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash="a hash")
        account_data.close_account(connection, user.account_id)
    store_data(database, stores, owner.account_id, user.user_id)
    return user.user_id


def store_data(database, stores, account_id, user_id):
    """Store a conversation, an ended job with an import, and the copy of a response."""
    job = NewJob("turn.run", account_id, opening=[event(0, "response.created", {})], owner_id=user_id)
    key = f"{account_id}/imports/{job.id}"
    stores.objects.put(key, io.BytesIO(b"bytes"))
    with database.transaction() as connection:
        conversation = conversations.create(connection, new_id("conv"), account_id, user_id, {})
        conversations.add_items(connection, conversation.id, [{"id": new_id("msg"), "type": "message"}])
        enqueue(connection, job)
        connection.execute("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE id = %s", (job.id,))
        files.insert(
            connection, new_id("file"), account_id, job_id=job.id, filename="a", purpose=files.IMPORT,
            content_type="text/plain", size=5, object_key=key, days=1,
        )  # fmt: skip
        connection.execute(
            "INSERT INTO idempotency_keys (account_id, key, requested_by, fingerprint, seed, locked_until)"
            " VALUES (%s, %s, %s, '\\x00', '\\x00', now())",
            (account_id, new_id("key"), user_id),
        )


def erase_job(owner, user_id):
    arguments = {"account_ids": [], "user_ids": [user_id], "shared_account_ids": [owner.account_id]}
    return NewJob("data.erase", PLATFORM_ACCOUNT, arguments)


def owners_of_rows(database, owner):
    """Return the owners of the account's rows by table, and the number of its files."""
    with database.connection() as connection:
        found = {
            table: [row["owner"] for row in connection.execute(
                f"SELECT {column} AS owner FROM {table} WHERE account_id = %s", (owner.account_id,)
            )]
            for table, column in OWNERS.items()
        }  # fmt: skip
        for table in ("files", "conversation_items"):
            rows = connection.execute(f"SELECT FROM {table} WHERE account_id = %s", (owner.account_id,))
            found[table] = rows.rowcount
    return found


def only_of(owner):
    return {**{table: [owner.user_id] for table in OWNERS}, "files": 1, "conversation_items": 1}


def test_rows_of_the_user_are_erased_and_those_of_others_remain(database, stores, owner, left, begin):
    ending = erase.run(stores, begin(erase_job(owner, left)))

    assert ending.result["people"] == 1
    assert owners_of_rows(database, owner) == only_of(owner)


def test_data_in_an_account_that_the_user_left_before_is_erased(database, stores, owner, left, begin):
    # Given a job that does not name the account
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO audit_events (id, account_id, user_id, action) VALUES (%s, %s, %s, 'member.added')",
            (new_id("evt"), owner.account_id, left),
        )
    job = NewJob("data.erase", PLATFORM_ACCOUNT, {"account_ids": [], "user_ids": [left]})

    erase.run(stores, begin(job))

    assert owners_of_rows(database, owner) == only_of(owner)


@pytest.mark.parametrize("step", ["files", "conversation_items", "jobs", "conversations", "idempotency_keys"])
def test_an_erasure_continues_after_a_crash_at_each_step(database, stores, owner, left, begin, monkeypatch, step):
    # Given an attempt whose process ended when it had deleted a batch of the step
    job = erase_job(owner, left)
    attempt = begin(job)

    def report(done, total=None, *, note=""):
        if note == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(attempt), "report_progress", lambda self, *args, **named: report(*args, **named))
        with pytest.raises(Killed):
            erase.run(stores, attempt)

    ending = erase.run(stores, begin(job))

    assert ending.state == "completed"
    assert owners_of_rows(database, owner) == only_of(owner)


def test_unfinished_jobs_of_the_user_and_exports_are_cancelled_first(database, stores, owner, left, begin):
    # Given running jobs: the user's, an export of the account, and the owner's
    jobs = [
        NewJob("turn.run", owner.account_id, owner_id=left),
        NewJob("account.export", owner.account_id),
        NewJob("turn.run", owner.account_id, owner_id=owner.user_id),
    ]
    with database.transaction() as connection:
        for job in jobs:
            enqueue(connection, job)
            connection.execute("UPDATE jobs SET state = 'running', attempt = 1, worker = 'w' WHERE id = %s", (job.id,))

    with pytest.raises(Released):
        erase.run(stores, begin(erase_job(owner, left)))

    with database.connection() as connection:
        cancelled = connection.execute(
            "SELECT id FROM jobs WHERE id = ANY(%s) AND cancel_requested_at IS NOT NULL", ([job.id for job in jobs],)
        ).fetchall()
    assert {row["id"] for row in cancelled} == {jobs[0].id, jobs[1].id}


def test_batches_continue_after_the_last_id(database, owner, left, monkeypatch):
    # Given more conversations of the user than a batch has
    monkeypatch.setattr(member_data, "BATCH", 2)
    with database.transaction() as connection:
        for _ in range(4):
            conversations.create(connection, new_id("conv"), owner.account_id, left, {})
    data, last_id, sizes = member_data.MemberData(owner.account_id, left), "", []

    with database.connection() as connection:
        while row_ids := data.erase_batch(connection, "conversations", last_id):
            last_id = row_ids[-1]
            sizes.append(len(row_ids))

    assert sizes == [2, 2, 1]

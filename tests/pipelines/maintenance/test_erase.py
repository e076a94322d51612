"""Given a closed account, when it is erased, then only billing records without personal data remain."""

import io
from dataclasses import replace

import pytest

from models.access import sessions
from models.accounts import account_data, accounts, files
from models.jobs.jobs import PLATFORM_ACCOUNT, UNFINISHED, NewJob, enqueue
from models.journal import journal
from models.journal.events import event
from models.journal.journal import Claim
from models.journal.shards import announcement, shard_keys
from models.platform.errors import Released
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.turns import conversations
from pipelines import time_slice
from pipelines.accounts.email_jobs import EmailTemplate, email_job
from pipelines.delivery.mailers import FolderMailer
from pipelines.maintenance import erase
from pipelines.maintenance.erase import Stores

#: Tables that keep rows: what is billed, and the sums of reports, which have no texts.
KEPT = {"usage_records", "error_counts"}


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.open(Settings(data_dir=tmp_path))


@pytest.fixture
def member(database):
    """A user with an account, a session, a conversation, a job and a usage record."""
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash="a hash")
        sessions.create(connection, member.user_id)
        conversation = conversations.create(connection, new_id("conv"), member.account_id, member.user_id, {})
        conversations.add_items(connection, conversation.id, [{"id": new_id("msg"), "type": "message"}])
        opening = [event(0, "response.created", {"secret": "what was said"})]
        enqueue(connection, NewJob("turn.run", member.account_id, opening=opening))
        connection.execute(
            "INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens)"
            " VALUES (%s, %s, 'm', 1, 0, 2)",
            (new_id("job"), member.account_id),
        )
    return member


def erase_job(member):
    arguments = {"account_ids": [member.account_id], "user_ids": [member.user_id]}
    return NewJob("data.erase", PLATFORM_ACCOUNT, arguments)


def tables_with_rows(database, account_id):
    """Return the tables that have a row of the account."""
    with database.connection() as connection:
        names = connection.execute(
            "SELECT table_name AS name FROM information_schema.columns"
            " WHERE column_name = 'account_id' AND table_schema = 'public'"
        ).fetchall()
        return {
            row["name"]
            for row in names
            if connection.execute(f"SELECT 1 FROM {row['name']} WHERE account_id = %s", (account_id,)).fetchone()
        }


def test_only_billing_records_remain(database, redis_client, objects, member, begin):
    with database.connection() as connection:
        account_data.close_account(connection, member.account_id)

    ending = erase.run(Stores(redis_client, objects), begin(erase_job(member)))

    assert ending.state == "completed"
    assert tables_with_rows(database, member.account_id) == KEPT
    with database.connection() as connection:
        assert connection.execute("SELECT 1 FROM users WHERE id = %s", (member.user_id,)).fetchone() is None
        account = connection.execute("SELECT name FROM accounts WHERE id = %s", (member.account_id,)).fetchone()
    assert account == {"name": "erased"}


@pytest.mark.parametrize("state", UNFINISHED)
def test_unfinished_jobs_of_every_state_are_cancelled_before_the_erasure(database, member, state):
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = %s WHERE account_id = %s", (state, member.account_id))

        assert len(account_data.unfinished_jobs(connection, member.account_id)) == 1


def test_open_effects_remain_for_the_operator_who_resolves_them(database, redis_client, objects, member, begin):
    # Given effects of an account's deleted job, one of them unknown
    with database.connection() as connection:
        account_data.close_account(connection, member.account_id)
        for state in ("done", "failed", "unknown"):
            connection.execute(
                "INSERT INTO effects (job_id, step, account_id, idempotency_key, request_hash, state, result)"
                " VALUES (%s, %s, %s, %s, 'a hash', %s, '{}')",
                (new_id("job"), state, member.account_id, new_id("key"), state),
            )

    erase.run(Stores(redis_client, objects), begin(erase_job(member)))

    with database.connection() as connection:
        left = connection.execute("SELECT state FROM effects WHERE account_id = %s", (member.account_id,)).fetchall()
    assert left == [{"state": "unknown"}]


def test_journals_are_deleted(database, redis_client, objects, member, begin):
    with database.connection() as connection:
        job_id = connection.execute("SELECT id FROM jobs WHERE account_id = %s", (member.account_id,)).fetchone()["id"]
        account_data.close_account(connection, member.account_id)
    journal.append(redis_client, Claim(job_id), [event(0, "response.created", {"secret": "what was said"})])

    erase.run(Stores(redis_client, objects), begin(erase_job(member)))

    assert journal.last_sequence(redis_client, job_id) == -1


def test_files_are_deleted_with_their_objects(database, redis_client, objects, member, begin):
    objects.put(f"{member.account_id}/a", io.BytesIO(b"bytes"))
    with database.connection() as connection:
        files.insert(
            connection, new_id("file"), member.account_id, job_id=new_id("job"), filename="a", purpose="export",
            content_type="text/plain", size=5, object_key=f"{member.account_id}/a", days=1,
        )  # fmt: skip
        account_data.close_account(connection, member.account_id)

    erase.run(Stores(redis_client, objects), begin(erase_job(member)))

    assert "files" not in tables_with_rows(database, member.account_id)
    with pytest.raises(Exception, match="deleted"):
        objects.get(f"{member.account_id}/a")


def test_objects_without_a_row_are_deleted_and_named(database, redis_client, objects, member, begin):
    # Given an object that was stored after the rows of its upload were deleted, and one of another account
    objects.put(f"{member.account_id}/files/late", [b"bytes"])
    objects.put(f"{member.account_id}0/files/other", [b"bytes"])
    with database.connection() as connection:
        account_data.close_account(connection, member.account_id)
    # When the account is erased
    ending = erase.run(Stores(redis_client, objects), begin(erase_job(member)))
    # Then the object is deleted, too
    assert ending.result["objects_without_row"] == [f"{member.account_id}/files/late"]
    assert [found.key for found in objects.list()] == [f"{member.account_id}0/files/other"]


def test_a_second_attempt_continues_the_first(database, redis_client, objects, member, begin):
    with database.connection() as connection:
        account_data.close_account(connection, member.account_id)
    job = erase_job(member)
    attempt = begin(job)
    with database.connection() as connection:
        account_data.erase_batch(connection, "conversation_items", member.account_id)
    attempt.stop("overtaken")

    erase.run(Stores(redis_client, objects), begin(job))

    assert tables_with_rows(database, member.account_id) == KEPT


def test_a_member_of_another_account_is_not_erased(database, redis_client, objects, member, begin):
    with database.transaction() as connection:
        other = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')",
            (other.account_id, member.user_id),
        )
        account_data.close_account(connection, member.account_id)

    erase.run(Stores(redis_client, objects), begin(erase_job(member)))

    with database.connection() as connection:
        assert connection.execute("SELECT 1 FROM users WHERE id = %s", (member.user_id,)).fetchone() is not None


def running_job(database, member):
    """Return the account's job, which a worker has begun."""
    with database.connection() as connection:
        job_id = connection.execute("SELECT id FROM jobs WHERE account_id = %s", (member.account_id,)).fetchone()["id"]
        connection.execute("UPDATE jobs SET state = 'running', attempt = 1, worker = 'w' WHERE id = %s", (job_id,))
    return job_id


def test_an_erasure_waits_for_a_running_job_without_its_thread(database, redis_client, objects, member, begin):
    # Given an account with a running job
    job_id, stores = running_job(database, member), Stores(redis_client, objects)
    with database.connection() as connection:
        account_data.close_account(connection, member.account_id)

    # When it is erased
    with pytest.raises(Released) as released:
        erase.run(stores, begin(job := erase_job(member)))

    # Then the job is cancelled, nothing is deleted yet, and the thread is free
    assert released.value.delay == erase.SETTLE_DELAY
    assert "conversation_items" in tables_with_rows(database, member.account_id)
    with database.connection() as connection:
        row = connection.execute("SELECT cancel_requested_at FROM jobs WHERE id = %s", (job_id,)).fetchone()
        assert row["cancel_requested_at"] is not None
        connection.execute("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE id = %s", (job_id,))
    assert erase.run(stores, begin(job)).state == "completed"
    assert tables_with_rows(database, member.account_id) == KEPT


def test_a_long_erasure_yields_to_another(database, redis_client, objects, member, begin, monkeypatch):
    # Given another erasure that waits for the thread
    monkeypatch.setattr(time_slice.TimeSlice.__init__, "__defaults__", (time_slice.SECONDS, 0))
    monkeypatch.setattr(time_slice, "INTERVAL", 0)
    job, waiting = (replace(erase_job(member), lane=lane) for lane in ("erase one", "erase two"))
    stores, attempts = Stores(redis_client, objects), 0
    with database.transaction() as connection:
        account_data.close_account(connection, member.account_id)
        enqueue(connection, waiting)
        connection.execute("UPDATE jobs SET published_at = now() - interval '1 second' WHERE id = %s", (waiting.id,))

    # When the long one runs again and again
    while attempts < 100:
        attempts += 1
        try:
            ending = erase.run(stores, begin(job))
            break
        except Released:
            continue

    # Then each attempt deletes a batch, and the last one completes it
    with database.connection() as connection:
        connection.execute("DELETE FROM jobs WHERE id = %s", (waiting.id,))
    assert attempts > 1
    assert ending.result["rows"] > 2
    assert tables_with_rows(database, member.account_id) == KEPT


def test_announcements_and_emails_are_deleted(database, redis_client, objects, member, begin, tmp_path):
    # Given an ended turn that was announced, and e-mails to the user and to others
    mailbox = FolderMailer(tmp_path / "mailbox")
    to_user, invitation, to_another = (
        email_job(EmailTemplate.VERIFY_ADDRESS, user_id=member.user_id),
        email_job(EmailTemplate.INVITATION, account_id=member.account_id, invitation_id=new_id("inv")),
        email_job(EmailTemplate.VERIFY_ADDRESS, user_id=new_id("user")),
    )
    mailbox.folder.mkdir()
    with database.transaction() as connection:
        job_id = connection.execute("SELECT id FROM jobs WHERE account_id = %s", (member.account_id,)).fetchone()["id"]
        for job in (to_user, invitation, to_another):
            enqueue(connection, job)
            (mailbox.folder / f"{job.id}.eml").write_text("hello")
        account_data.close_account(connection, member.account_id)
    redis_client.execute_command(*announcement(job_id, [event(0, "a.delta", {"delta": "what was said"})]))

    erase.run(Stores(redis_client, objects, mailbox), begin(erase_job(member)))

    assert [path.stem for path in mailbox.folder.iterdir()] == [to_another.id]
    entries = [fields for key in shard_keys() for _, fields in redis_client.xrange(key)]
    assert job_id.encode() not in repr(entries).encode()

"""Given a closed account, when it is erased, then only billing records without personal data remain."""

import io

import pytest

from models.access import sessions
from models.accounts import account_data, accounts, files
from models.jobs.jobs import PLATFORM_ACCOUNT, UNFINISHED, NewJob, enqueue
from models.journal import journal
from models.journal.events import event
from models.journal.journal import Claim
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.turns import conversations
from pipelines.maintenance import erase


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.open(Settings(data_dir=tmp_path))


@pytest.fixture
def member(database):
    """A user with an account, a session, a conversation, a job and a usage record."""
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash="a hash")
        sessions.create(connection, member.user_id)
        conversation = conversations.create(connection, new_id("conv"), member.account_id, {})
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

    ending = erase.run(redis_client, objects, begin(erase_job(member)))

    assert ending.state == "completed"
    assert tables_with_rows(database, member.account_id) == {"usage_records"}
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

    erase.run(redis_client, objects, begin(erase_job(member)))

    with database.connection() as connection:
        left = connection.execute("SELECT state FROM effects WHERE account_id = %s", (member.account_id,)).fetchall()
    assert left == [{"state": "unknown"}]


def test_journals_are_deleted(database, redis_client, objects, member, begin):
    with database.connection() as connection:
        job_id = connection.execute("SELECT id FROM jobs WHERE account_id = %s", (member.account_id,)).fetchone()["id"]
        account_data.close_account(connection, member.account_id)
    journal.append(redis_client, Claim(job_id), [event(0, "response.created", {"secret": "what was said"})])

    erase.run(redis_client, objects, begin(erase_job(member)))

    assert journal.last_sequence(redis_client, job_id) == -1


def test_files_are_deleted_with_their_objects(database, redis_client, objects, member, begin):
    objects.put(f"{member.account_id}/a", io.BytesIO(b"bytes"))
    with database.connection() as connection:
        files.insert(
            connection, new_id("file"), member.account_id, job_id=new_id("job"), filename="a", purpose="export",
            content_type="text/plain", size=5, object_key=f"{member.account_id}/a", days=1,
        )  # fmt: skip
        account_data.close_account(connection, member.account_id)

    erase.run(redis_client, objects, begin(erase_job(member)))

    assert "files" not in tables_with_rows(database, member.account_id)
    with pytest.raises(Exception, match="deleted"):
        objects.get(f"{member.account_id}/a")


def test_a_second_attempt_continues_the_first(database, redis_client, objects, member, begin):
    with database.connection() as connection:
        account_data.close_account(connection, member.account_id)
    job = erase_job(member)
    attempt = begin(job)
    with database.connection() as connection:
        account_data.erase_batch(connection, "conversation_items", member.account_id)
    attempt.stop("overtaken")

    erase.run(redis_client, objects, begin(job))

    assert tables_with_rows(database, member.account_id) == {"usage_records"}


def test_a_member_of_another_account_is_not_erased(database, redis_client, objects, member, begin):
    with database.transaction() as connection:
        other = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')",
            (other.account_id, member.user_id),
        )
        account_data.close_account(connection, member.account_id)

    erase.run(redis_client, objects, begin(erase_job(member)))

    with database.connection() as connection:
        assert connection.execute("SELECT 1 FROM users WHERE id = %s", (member.user_id,)).fetchone() is not None

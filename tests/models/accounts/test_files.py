"""Files count for their account's limit, and those of imports expire with their jobs."""

import pytest

from models.accounts import files
from models.accounts.plans import Limits
from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import LimitExceeded, TooLarge
from models.platform.ids import new_id

LIMITED = Limits(stored_bytes=100)


def insert(connection, account, *, size=10, job_id="", purpose="import"):
    """Insert a file and return its id."""
    file_id = new_id("file")
    files.insert(
        connection, file_id, account, job_id=job_id or new_id("job"), filename="f", purpose=purpose,
        content_type="text/plain", size=size, object_key=file_id, days=7,
    )  # fmt: skip
    return file_id


def expired(connection, file_id):
    row = connection.execute("SELECT expires_at <= now() AS expired FROM files WHERE id = %s", (file_id,)).fetchone()
    return row["expired"]


def test_files_of_any_purpose_count_for_the_limit(database, account):
    with database.transaction() as connection:
        insert(connection, account, size=60)
        insert(connection, account, size=20, purpose="export")

        files.check_stored_bytes(connection, account, LIMITED, 20)
        files.check_stored_bytes(connection, account, LIMITED)
        with pytest.raises(LimitExceeded) as rejected:
            files.check_stored_bytes(connection, account, LIMITED, 21)

    assert (rejected.value.code, rejected.value.retry_after) == ("storage_full", files.STORAGE_RETRY_AFTER)
    assert "80 of at most 100 bytes" in rejected.value.message


def test_a_file_above_the_whole_limit_is_too_large(database, account):
    with database.transaction() as connection, pytest.raises(TooLarge, match="101 bytes"):
        files.check_stored_bytes(connection, account, LIMITED, 101)


def test_a_full_account_has_no_room_for_a_file_of_unknown_size(database, account):
    with database.transaction() as connection:
        insert(connection, account, size=100)

        with pytest.raises(LimitExceeded):
            files.check_stored_bytes(connection, account, LIMITED)
        files.check_stored_bytes(connection, account, Limits())


def test_a_repeated_request_does_not_count_its_file_twice(database, account):
    with database.transaction() as connection:
        file_id = insert(connection, account, size=60)

        files.check_stored_bytes(connection, account, LIMITED, 60, file_id=file_id)


@pytest.mark.parametrize(
    ("state", "expires"),
    [("completed", True), ("failed", True), ("cancelled", True), ("dead", False), ("queued", False)],
)
def test_an_imported_file_expires_with_its_job(database, account, state, expires):
    job = NewJob("memory.import", account)
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute("UPDATE jobs SET state = %s, finished_at = now() WHERE id = %s", (state, job.id))
        imported, export = (insert(connection, account, job_id=job.id, purpose=name) for name in ("import", "export"))

        assert files.expire_ended_imports(connection) or not expires

        assert (expired(connection, imported), expired(connection, export)) == (expires, False)


def test_a_file_whose_job_was_never_inserted_expires_after_an_hour(database, account):
    with database.transaction() as connection:
        file_id = insert(connection, account)
        files.expire_ended_imports(connection)
        assert not expired(connection, file_id)
        connection.execute("UPDATE files SET created_at = now() - interval '61 minutes' WHERE id = %s", (file_id,))

        assert files.expire_ended_imports(connection)

        assert expired(connection, file_id)

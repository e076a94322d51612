"""Given a result of a job, when it is stored as a file, then it is visible once it is complete, and nothing else is."""

import io

import pytest

from models.accounts import files, uploads
from models.accounts.files import FileAccess
from models.delivery import events
from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import Cancelled, NotAuthenticated, Unavailable
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.files import completion, writer
from pipelines.files.content import read_content
from pipelines.files.store import store_file


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.open(Settings(data_dir=tmp_path))


@pytest.fixture(autouse=True)
def small_objects(monkeypatch):
    """Objects of ten bytes."""
    monkeypatch.setattr("pipelines.files.store.OBJECT_BYTES", 10)


def store(database, objects, account, content, *, file_id=None, job_id=None, **others):
    about = {"filename": "x.jsonl", "purpose": "batch_output", "content_type": "application/jsonl"}
    about |= {"audience": "account", "days": None, "user_id": None, **others}
    file_id = file_id or new_id("file")
    return store_file(database, objects, account_id=account, file_id=file_id, job_id=job_id, content=content, **about)


def stored_objects(tmp_path):
    return [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"", b"a", b"0123456789", b"0123456789abcdefghijklm"])
@pytest.mark.parametrize("iterates", [False, True])
def test_content_of_any_size_is_read_as_it_was_stored(database, objects, account, content, iterates):
    source = iter([content[:3], content[3:]]) if iterates else io.BytesIO(content)

    file = store(database, objects, account, source)

    assert b"".join(read_content(objects, file)) == content
    assert file.bytes == len(content)
    assert len(file.objects) == max(1, -(-len(content) // 10))


def test_any_range_is_read_across_objects(database, objects, account):
    content = b"0123456789abcdefghijklmnopqrstuvw"
    file = store(database, objects, account, io.BytesIO(content))

    for start in range(len(content) + 2):
        for length in (0, 1, 9, 10, 11, 40):
            assert b"".join(read_content(objects, file, start, length)) == content[start : start + length]
        assert b"".join(read_content(objects, file, start)) == content[start:]


def test_a_repeated_attempt_gets_the_file_of_the_first_one(database, objects, account, tmp_path):
    file_id = new_id("file")
    first = store(database, objects, account, io.BytesIO(b"one"), file_id=file_id)

    second = store(database, objects, account, iter(()), file_id=file_id)

    assert first == second
    assert b"".join(read_content(objects, second)) == b"one"
    assert len(stored_objects(tmp_path)) == 1
    with database.connection() as connection:
        recorded = events.page(connection, account, patterns=["file.created"])
    assert [event.data for event in recorded] == [{"id": file_id, "purpose": "batch_output"}]


def test_content_that_breaks_off_leaves_nothing(database, objects, account, tmp_path, monkeypatch):
    def broken():
        yield b"x" * 25
        raise Unavailable("away")

    monkeypatch.setattr(uploads, "STORING", 0)
    with pytest.raises(Unavailable):
        store(database, objects, account, broken())

    completion.delete_left_over(database, objects)
    assert stored_objects(tmp_path) == []
    with database.connection() as connection:
        assert files.page(connection, FileAccess(account, None, admin=True)) == []
        assert files.stored_bytes(connection, account) == 0


def test_a_result_of_an_ended_job_is_not_stored(database, objects, account, monkeypatch, tmp_path):
    job = NewJob("account.export", account)
    with database.transaction() as connection:
        enqueue(connection, job)
    kept = store(database, objects, account, io.BytesIO(b"kept"), job_id=job.id)
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE id = %s", (job.id,))

    with pytest.raises(Cancelled):
        store(database, objects, account, io.BytesIO(b"late"), job_id=job.id)

    assert b"".join(read_content(objects, kept)) == b"kept"
    assert len(stored_objects(tmp_path)) == 1


def test_a_result_for_an_erased_account_is_not_stored(database, objects, account, tmp_path):
    with database.connection() as connection:
        connection.execute("UPDATE accounts SET erased_at = now() WHERE id = %s", (account,))

    with pytest.raises(NotAuthenticated):
        store(database, objects, account, io.BytesIO(b"late"))

    assert stored_objects(tmp_path) == []


def test_nothing_is_added_to_a_cancelled_upload(database, objects, account, tmp_path):
    upload_id = new_id("upload")
    with database.connection() as connection:
        uploads.insert(connection, upload_id, account, user_id=None, size=0)
    part = writer.PartWriter(database, objects, upload_id, account, new_id("part"))
    part.write(b"one")
    completion.cancel_upload(database, objects, upload_id, account)

    with pytest.raises(Exception, match="completed or cancelled"):
        part.write(b"two")

    assert len(stored_objects(tmp_path)) == 1  # another process could be storing it: swept later

"""Given a process that is killed before or after any step, when a file is stored, then it is whole or not there."""

import io
from contextlib import contextmanager

import pytest

from models.accounts import files, uploads
from models.accounts.files import FileAccess
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.files.completion import delete_left_over
from pipelines.files.content import read_content
from pipelines.files.deletion import delete_file
from pipelines.files.store import store_file

CONTENT = b"0123456789abcdefghijklm"


class Killed(BaseException):
    """The end of the process."""


class Steps:
    """Counts the steps of a process, which is killed at one of them and does nothing more."""

    def __init__(self, killed_at):
        self.killed_at, self.done = killed_at, 0

    def step(self):
        if self.done >= self.killed_at:
            raise Killed
        self.done += 1


class KilledDatabase:
    """A database of a process that is killed before or after a transaction."""

    def __init__(self, database, steps):
        self._database, self._steps = database, steps

    @contextmanager
    def connection(self):
        self._steps.step()
        with self._database.connection() as connection:
            yield connection
        self._steps.step()

    @contextmanager
    def transaction(self):
        self._steps.step()
        with self._database.transaction() as connection:
            yield connection
            self._steps.step()
        self._steps.step()


class KilledStore:
    """An object store of a process that is killed before or after a call."""

    def __init__(self, objects, steps):
        self._objects, self._steps = objects, steps

    def put(self, key, *arguments, **options):
        self._steps.step()
        size = self._objects.put(key, *arguments, **options)
        self._steps.step()
        return size

    def delete(self, keys):
        for key in list(keys):
            self._steps.step()
            self._objects.delete([key])
        self._steps.step()


@pytest.fixture
def objects(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.files.store.OBJECT_BYTES", 10)
    return ObjectStore.open(Settings(data_dir=tmp_path))


def store(database, objects, account, file_id):
    return store_file(
        database, objects, account_id=account, user_id=None, file_id=file_id, filename="x", purpose="user_data",
        content_type="text/plain", content=io.BytesIO(CONTENT), audience="account", days=None, job_id=None,
    )  # fmt: skip


def visible(database, account):
    with database.connection() as connection:
        return files.page(connection, FileAccess(account, None, admin=True))


def keys_in(folder):
    return {str(path.relative_to(folder / "objects")) for path in (folder / "objects").rglob("*") if path.is_file()}


def owned_keys(database, account):
    with database.connection() as connection:
        rows = connection.execute("SELECT object_key FROM file_objects WHERE account_id = %s", (account,)).fetchall()
    return {row["object_key"] for row in rows}


def sweep(database, objects, monkeypatch):
    """Delete what belongs to nothing, an hour later."""
    monkeypatch.setattr(uploads, "STORING", 0)
    with database.connection() as connection:
        connection.execute("UPDATE uploads SET expires_at = now()")
    while delete_left_over(database, objects):
        pass


def kill_at(step, action):
    """Run an action of a process that is killed at a step. Returns whether it was."""
    try:
        action(Steps(step))
    except Killed:
        return True
    return False


def test_a_killed_upload_leaves_nothing_for_ever(database, objects, account, tmp_path, monkeypatch):
    step = 0
    file_id = new_id("file")

    def upload(steps):
        store(KilledDatabase(database, steps), KilledStore(objects, steps), account, file_id)

    while kill_at(step, upload):
        stored = visible(database, account)
        assert keys_in(tmp_path) <= owned_keys(database, account), step
        sweep(database, objects, monkeypatch)

        assert [b"".join(read_content(objects, file)) for file in stored] in ([], [CONTENT]), step
        assert keys_in(tmp_path) == {each.key for file in stored for each in file.objects}, step
        step += 1
        if stored:  # a later attempt finds it
            assert store(database, objects, account, file_id).id == file_id
            delete_file(database, objects, stored[0])

    assert step > 20
    assert [file.id for file in visible(database, account)] == [file_id]


def test_a_killed_deletion_is_completed(database, objects, account, tmp_path, monkeypatch):
    step = 0

    def delete(steps):
        delete_file(KilledDatabase(database, steps), KilledStore(objects, steps), file)

    file = store(database, objects, account, new_id("file"))
    while kill_at(step, delete):
        left = visible(database, account)
        if not left:
            with database.connection() as connection:
                expired = [each for each in files.expired(connection, 1_000) if each.account_id == account]
            for each in expired:  # as the nightly pruning does
                objects.delete(each.keys)
                with database.connection() as connection:
                    files.delete(connection, each.id, account)
            sweep(database, objects, monkeypatch)
            assert keys_in(tmp_path) == set(), step
            file = store(database, objects, account, new_id("file"))
        else:
            assert b"".join(read_content(objects, left[0])) == CONTENT, step
        step += 1

    assert step > 5
    assert visible(database, account) == []
    assert keys_in(tmp_path) == set()

"""Objects in a folder: complete or absent, for this user only, and inside the folder."""

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from models.platform.errors import NotFound
from models.platform.object_errors import ObjectExists, ObjectStoreUnavailable
from models.platform.object_store import DamagedObject, ObjectStore, key_with_digest
from models.platform.settings import Settings

KEY = "acct_1/files/a"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "objects"


@pytest.fixture
def objects(folder):
    return ObjectStore.open(Settings(data_dir=folder.parent, object_store=str(folder)))


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_files_and_folders_are_for_this_user_only(objects, folder):
    before = os.umask(0)
    try:
        objects.put(KEY, [b"bytes"])
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes == {"objects": 0o700, "acct_1": 0o700, "files": 0o700, "a": 0o600}


def test_an_object_is_written_to_the_disk_before_it_has_its_name(objects, folder, monkeypatch):
    # Given what is synchronised, and whether the object is visible then
    synchronised = []
    fsync = os.fsync

    def record(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synchronised.append((kind, (folder / KEY).exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    # When an object is put
    objects.put(KEY, [b"bytes"])
    # Then its folders are, then its content, and its name at last
    assert synchronised == [("folder", False), ("folder", False), ("file", False), ("folder", True)]


def test_nothing_is_left_of_a_writer_that_raises(objects, folder):
    def chunks():
        yield bytes(3_000_000)
        raise ConnectionResetError("the client has gone")

    with pytest.raises(ConnectionResetError):
        objects.put(KEY, chunks())

    assert files_in(folder) == []


def test_a_killed_writer_leaves_no_object_and_what_it_leaves_is_deleted(objects, folder):
    # Given a process that is killed half way
    script = f"""
import os
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
def chunks():
    yield bytes(3_000_000)
    os.kill(os.getpid(), 9)
ObjectStore.open(Settings(object_store={str(folder)!r})).put({KEY!r}, chunks())
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    # Then there is no object
    with pytest.raises(NotFound):
        objects.get(KEY)
    assert list(objects.list()) == []
    assert len(files_in(folder)) == 1
    # And a sweep deletes what is left, but not what may still be being written
    assert objects.delete_unfinished(3600) == 0
    assert objects.delete_unfinished(0) == 1
    assert files_in(folder) == []


def test_a_full_disk_is_named_and_leaves_nothing(objects, folder, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    folder.joinpath("acct_1/files").mkdir(parents=True)

    with pytest.raises(ObjectStoreUnavailable) as raised:
        objects.put(KEY, [b"bytes"])

    assert raised.value.reason == f"No space is left for the folder {folder}: add space."
    assert str(folder) not in str(raised.value)
    assert files_in(folder) == []


@pytest.mark.parametrize(
    "key", ["..", "a/../../b", "/etc/passwd", "a//b", "a/./b", ".writing-a", "a/", "a\\b", "a b", "a\n", "é", "a" * 600]
)
def test_a_key_with_a_path_trick_is_rejected_everywhere(objects, key):
    for call in (
        lambda: objects.put(key, [b"bytes"]),
        lambda: objects.get(key),
        lambda: objects.head(key),
        lambda: objects.delete([key]),
        lambda: objects.presign(key, 1, "a", "text/plain"),
    ):
        with pytest.raises(ValueError, match="not a key of an object"):
            call()


def test_a_symbolic_link_is_not_followed(objects, folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    objects.put(KEY, [b"bytes"])
    (folder / KEY).unlink()
    (folder / KEY).symlink_to(secret)

    with pytest.raises(ObjectStoreUnavailable):
        objects.get(KEY)
    objects.put(KEY, [b"bytes"])

    assert secret.read_text() == "secret"
    assert b"".join(objects.get(KEY)) == b"bytes"


def test_of_concurrent_writers_one_stores_an_object_that_must_be_new(objects):
    outcomes = []

    def store(content):
        try:
            objects.put(KEY, [content], only_if_absent=True)
            outcomes.append(content)
        except ObjectExists:
            pass

    threads = [threading.Thread(target=store, args=(b"%d" % number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(outcomes) == 1
    assert b"".join(objects.get(KEY)) == outcomes[0]


def test_objects_are_stored_while_their_folder_is_deleted(objects):
    def work(name):
        for _ in range(50):
            objects.put(f"acct_1/files/{name}", [b"bytes"])
            objects.delete([f"acct_1/files/{name}"])

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    objects.put(KEY, [b"bytes"])
    assert [found.key for found in objects.list()] == [KEY]


def test_folders_of_an_erased_account_are_removed(objects, folder):
    objects.put(KEY, [b"bytes"])

    objects.delete_prefix("acct_1")

    assert list(folder.iterdir()) == []


def test_truncated_content_is_noticed(objects, folder):
    content = bytes(2_000_000)
    key = key_with_digest(KEY, content)
    objects.put(key, [content])
    os.truncate(folder / key, 1_000_000)

    with pytest.raises(DamagedObject):
        list(objects.get(key))
    with pytest.raises(DamagedObject):
        list(objects.get(key, 0, 2_000_000))


def test_a_folder_has_no_urls(objects):
    assert objects.presign(KEY, 60, "a.txt", "text/plain") is None

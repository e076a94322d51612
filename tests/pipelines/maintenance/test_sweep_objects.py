"""Given objects with and without rows, when the platform sweeps, then only those that are left over are deleted."""

import os
import time

import pytest

from models.accounts import accounts, files
from models.accounts.owned_objects import database_id
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob
from models.platform.errors import Released
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.platform.store_owner import MARK, mark, owner_of, replace_mark
from pipelines.files.store import store_file
from pipelines.maintenance import sweep_objects

DAY = 86_400


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "objects"


@pytest.fixture
def objects(folder):
    return ObjectStore.open(Settings(object_store=str(folder)))


@pytest.fixture
def account_id(database):
    with database.transaction() as connection:
        return accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None).account_id


@pytest.fixture
def owned(objects, folder, database):
    with database.connection() as connection:
        mark(objects, database_id(connection))
    age(folder, MARK, 8)


def age(folder, key, days):
    then = time.time() - days * DAY
    os.utime(folder / key, (then, then))


def put_old(objects, folder, key, days=2):
    objects.put(key, [b"bytes"])
    age(folder, key, days)
    return key


def sweep(objects, begin):
    ending = sweep_objects.run(objects, begin(NewJob(sweep_objects.KIND, PLATFORM_ACCOUNT)))
    assert ending.state == "completed"
    return ending.result


def keys(objects):
    return {found.key for found in objects.list()} - {MARK}


def store(database, objects, account_id):
    file = store_file(
        database,
        objects,
        account_id=account_id,
        user_id=None,
        file_id=new_id("file"),
        filename="a.txt",
        purpose="assistants",
        content_type="text/plain",
        content=[b"content"],
        audience="account",
        days=None,
        job_id=None,
    )
    return file.objects[0].key


@pytest.mark.usefixtures("owned")
def test_old_objects_without_a_row_are_deleted(objects, folder, begin, database, account_id):
    # Given the object of a file, one of an import, one that is new, and one that is left over
    kept = {store(database, objects, account_id)}
    for key in kept:
        age(folder, key, 2)
    imported = put_old(objects, folder, f"{account_id}/imports/a")
    with database.transaction() as connection:
        files.insert(
            connection, new_id("file"), account_id, job_id="job_1", filename="a", purpose="import",
            content_type="text/plain", size=5, object_key=imported, days=1,
        )  # fmt: skip
    objects.put(f"{account_id}/files/new", [b"bytes"])
    put_old(objects, folder, f"{account_id}/files/left-over")
    # When the platform sweeps
    result = sweep(objects, begin)
    # Then only the last one is deleted
    assert keys(objects) == {*kept, imported, f"{account_id}/files/new"}
    assert (result["deleted"], result["unknown"]) == (1, 0)


@pytest.mark.usefixtures("owned")
def test_objects_of_accounts_of_others_are_kept_and_counted(objects, folder, begin):
    key = put_old(objects, folder, "acct_of-another-installation/files/a", days=100)

    assert sweep(objects, begin)["unknown"] == 1

    assert keys(objects) == {key}


def test_nothing_is_swept_in_the_store_of_another_installation(objects, folder, begin, account_id):
    replace_mark(objects, "another/database")
    age(folder, MARK, 8)
    key = put_old(objects, folder, f"{account_id}/files/left-over")

    assert "another/database" in sweep(objects, begin)["skipped"]

    assert keys(objects) == {key}
    assert owner_of(objects) == "another/database"


def test_nothing_is_swept_in_the_first_week(objects, folder, begin, account_id):
    key = put_old(objects, folder, f"{account_id}/files/left-over")

    assert "is new" in sweep(objects, begin)["skipped"]
    assert "is new" in sweep(objects, begin)["skipped"]

    assert keys(objects) == {key}


@pytest.mark.usefixtures("owned")
def test_an_interrupted_sweep_continues_behind_its_last_page(objects, folder, begin, account_id, monkeypatch):
    # Given pages of two objects, and an attempt that is released in its second page
    monkeypatch.setattr(sweep_objects, "PAGE", 2)
    for number in range(5):
        put_old(objects, folder, f"{account_id}/files/{number}")
    job = NewJob(sweep_objects.KIND, PLATFORM_ACCOUNT)
    attempt, delete, list_objects = begin(job), objects.delete, objects.list

    def delete_and_stop(doomed):
        delete(doomed)
        if len(keys(objects)) < 3:
            attempt.stop("released")

    monkeypatch.setattr(objects, "delete", delete_and_stop)
    with pytest.raises(Released):
        sweep_objects.run(objects, attempt)
    assert keys(objects) == {f"{account_id}/files/4"}
    # When the next attempt runs
    listed = []
    monkeypatch.setattr(
        objects, "list", lambda prefix="", after="": listed.append(after) or list_objects(prefix, after)
    )
    ending = sweep_objects.run(objects, begin(job))
    # Then it continues behind the first page
    assert listed[0] == f"{account_id}/files/1"
    assert ending.result["objects"] == 4
    assert list(list_objects(account_id)) == []

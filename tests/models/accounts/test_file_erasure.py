"""Given files of several objects and unfinished uploads, when they are erased, then all of their objects are named."""

import io

import pytest

from models.accounts import accounts, files, uploads
from models.accounts.account_data import AccountData
from models.accounts.member_data import MemberData
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.files.store import store_file
from pipelines.files.writer import PartWriter


@pytest.fixture
def stored(database, tmp_path, monkeypatch):
    """A member with a file of three objects and an unfinished upload; their store."""
    monkeypatch.setattr("pipelines.files.store.OBJECT_BYTES", 10)
    objects = ObjectStore.open(Settings(data_dir=tmp_path))
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        upload_id = new_id("upload")
        uploads.insert(connection, upload_id, member.account_id, user_id=member.user_id, size=10)
    store_file(
        database, objects, account_id=member.account_id, user_id=member.user_id, file_id=new_id("file"), filename="x",
        purpose="user_data", content_type="text/plain", content=io.BytesIO(b"x" * 25), audience="account", days=None,
        job_id=None,
    )  # fmt: skip
    PartWriter(database, objects, upload_id, member.account_id, new_id("part")).write(b"unfinished")
    return member, objects


@pytest.mark.parametrize("of_member", [False, True])
def test_an_erasure_finds_every_object(database, stored, tmp_path, of_member):
    member, objects = stored
    data = MemberData(member.account_id, member.user_id) if of_member else AccountData(member.account_id)

    with database.connection() as connection:
        while rows := data.list_files(connection):
            objects.delete(key for row in rows for key in row.keys)
            for row in rows:
                files.delete(connection, row.id, row.account_id)
        left = [
            connection.execute(f"SELECT FROM {table} WHERE account_id = %s", (member.account_id,)).fetchall()
            for table in ("files", "uploads", "upload_parts", "file_objects")
        ]

    assert left == [[], [], [], []]
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []

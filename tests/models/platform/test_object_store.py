"""Store, read and delete objects in a folder and in S3."""

import io
import os

import pytest

from models.platform.errors import ConfigurationError, NotFound, Unavailable
from models.platform.object_errors import ObjectStoreUnavailable
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings

KEY = "acct_1/exports/a.zip"


@pytest.fixture(params=["folder", "s3", "conditional_s3"])
def objects(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return ObjectStore.open(Settings(data_dir=tmp_path))
    service = request.getfixturevalue(request.param)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    return ObjectStore.open(Settings(data_dir=tmp_path, object_store=service.location))


def test_a_large_file_is_read_back_completely(objects):
    content = os.urandom(1024) * 11_000  # several parts of a multipart upload

    assert objects.put(KEY, io.BytesIO(content)) == len(content)

    assert b"".join(objects.get(KEY)) == content


def test_a_second_put_replaces_the_first(objects):
    objects.put(KEY, io.BytesIO(b"first"))
    objects.put(KEY, io.BytesIO(b"second"))

    assert b"".join(objects.get(KEY)) == b"second"


def test_deleted_and_missing_objects_can_be_deleted_again(objects):
    objects.put(KEY, io.BytesIO(b"bytes"))

    objects.delete([KEY, "acct_1/never-there"])
    objects.delete([KEY])

    with pytest.raises(NotFound):
        objects.get(KEY)


def test_a_part_of_an_object_is_read(objects):
    content = os.urandom(5_000_000)  # several pieces
    objects.put(KEY, io.BytesIO(content))

    assert b"".join(objects.get(KEY, 4_000_000)) == content[4_000_000:]
    assert b"".join(objects.get(KEY, 1, 3_000_000)) == content[1:3_000_001]
    assert b"".join(objects.get(KEY, 5_000_000)) == b""


def test_objects_are_listed_by_prefix(objects):
    for name in ("acct_1/a", "acct_1/b/c", "acct_12/a"):
        objects.put(name, io.BytesIO(b"bytes"))

    assert {each.key for each in objects.list("acct_1")} >= {"acct_1/a", "acct_1/b/c"}
    assert not {each.key for each in objects.list("acct_1")} & {"acct_12/a"}


@pytest.mark.parametrize("key", ["../escaped", "acct_1/../../escaped", "", "acct_1/a\0b"])
def test_a_key_that_leads_elsewhere_is_rejected(objects, key):
    with pytest.raises(ValueError, match="not a key of an object"):
        objects.put(key, io.BytesIO(b"bytes"))


def test_a_missing_bucket_is_no_missing_object(tmp_path, monkeypatch, conditional_s3, caplog):
    for name, value in conditional_s3.environment.items():
        monkeypatch.setenv(name, value)
    objects = ObjectStore.open(Settings(data_dir=tmp_path, object_store="s3://no-such-bucket"))

    with pytest.raises(Unavailable):
        objects.put(KEY, io.BytesIO(b"bytes"))
    with pytest.raises(ObjectStoreUnavailable, match=r"^File storage is temporarily unavailable\.$") as raised:
        objects.get(KEY)

    assert raised.value.reason == "The bucket of SANGHA_OBJECT_STORE does not exist: create it, or correct its name."
    assert raised.value.reason in caplog.text


def test_an_unreachable_store_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    objects = ObjectStore.open(Settings(data_dir=tmp_path, object_store="s3://bucket"))

    with pytest.raises(Unavailable):
        objects.put(KEY, io.BytesIO(b"bytes"))


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(ConfigurationError, match="SANGHA_OBJECT_STORE"):
        ObjectStore.open(Settings(data_dir=tmp_path, object_store=str(tmp_path / "file")))

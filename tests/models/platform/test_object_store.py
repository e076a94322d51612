"""Store, read and delete objects in a folder and in S3."""

import io
import os
import subprocess
import sys

import httpx
import pytest

from models.platform.errors import ConfigurationError, NotFound, Unavailable
from models.platform.object_errors import ObjectExists, ObjectStoreUnavailable
from models.platform.object_store import CHUNK, ObjectStore
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


@pytest.fixture(params=["folder", "conditional_s3"])
def conditional_objects(request, tmp_path, monkeypatch):
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


def test_an_object_that_must_be_new_is_stored_once(conditional_objects):
    conditional_objects.put(KEY, [b"first"], only_if_absent=True)
    conditional_objects.put(KEY, [b"first"], only_if_absent=True)  # as a retry does

    with pytest.raises(ObjectExists):
        conditional_objects.put(KEY, [b"second"], only_if_absent=True)

    assert b"".join(conditional_objects.get(KEY)) == b"first"


@pytest.mark.parametrize("size", [0, 1, 8 * CHUNK, 8 * CHUNK + 1, 20 * CHUNK])
def test_chunks_of_any_size_are_stored_and_read(objects, size):
    content = os.urandom(size)
    chunks = (content[start : start + 700_001] for start in range(0, size, 700_001))

    assert objects.put(KEY, chunks) == size

    assert b"".join(objects.get(KEY)) == content
    assert objects.head(KEY).size == size
    assert b"".join(objects.get(KEY, 0, size + 10)) == content
    assert b"".join(objects.get(KEY, size + 10, 10)) == b""


def test_objects_are_listed_behind_a_key_in_order(objects):
    keys = ["acct_1/a", "acct_1/a-b/c", "acct_1/a/b/c", "acct_1/b", "acct_2/a"]
    for key in sorted(keys, reverse=True):
        if key != "acct_1/a":
            objects.put(key, [b"bytes"])
    keys.remove("acct_1/a")

    assert [found.key for found in objects.list()] == sorted(keys)
    for index, key in enumerate(sorted(keys)):
        assert [found.key for found in objects.list(after=key)] == sorted(keys)[index + 1 :]


def test_many_objects_are_deleted(objects):
    for number in range(30):
        objects.put(f"acct_1/{number}", [b"bytes"])
    objects.put("acct_10/a", [b"bytes"])

    assert len(objects.delete_prefix("acct_1")) == 30

    assert [found.key for found in objects.list()] == ["acct_10/a"]


def test_nothing_is_stored_of_a_writer_that_raises(objects):
    def chunks():
        for _ in range(20):
            yield bytes(CHUNK)
        raise ConnectionResetError("the client has gone")

    with pytest.raises(ConnectionResetError):
        objects.put(KEY, chunks())

    assert list(objects.list()) == []


KILLED = """
import os, sys
from models.platform.object_store import CHUNK, ObjectStore
from models.platform.settings import Settings
def chunks():
    for _ in range(40):
        yield bytes(CHUNK)
    os.kill(os.getpid(), 9)
ObjectStore.open(Settings(object_store=sys.argv[1])).put(sys.argv[2], chunks())
"""


@pytest.mark.parametrize("service", ["s3", "conditional_s3"])
def test_the_parts_of_a_killed_writer_are_invisible_and_deleted(request, service, tmp_path, monkeypatch):
    # Given a process that is killed after some parts
    found = request.getfixturevalue(service)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    location = found.location
    assert subprocess.run([sys.executable, "-c", KILLED, location, KEY], check=False).returncode == -9
    # Then there is no object
    objects = ObjectStore.open(Settings(data_dir=tmp_path, object_store=location))
    assert list(objects.list()) == []
    # And its parts are deleted once they are old
    if service == "s3":  # to moto every upload began in 2010
        assert objects.delete_unfinished(3600) == 0
    assert objects.delete_unfinished(0) == 1
    assert objects.delete_unfinished(0) == 0


BOUNDED = """
import resource, sys
from models.platform.object_store import CHUNK, ObjectStore
from models.platform.settings import Settings
objects = ObjectStore.open(Settings(object_store=sys.argv[1]))
objects.put("acct_1/small", [bytes(CHUNK)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
objects.put("acct_1/large", (bytes([n % 256]) * CHUNK for n in range(300)))
assert sum(len(chunk) for chunk in objects.get("acct_1/large")) == 300 * CHUNK
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("service", ["folder", "s3"])
def test_a_large_object_needs_little_memory(request, service, tmp_path):
    location, environment = str(tmp_path), {}
    if service == "s3":
        found = request.getfixturevalue(service)
        location, environment = found.location, found.environment

    output = subprocess.check_output([sys.executable, "-c", BOUNDED, location], env=os.environ | environment)

    assert int(output) < 64  # MiB


@pytest.fixture
def signed(request, tmp_path, monkeypatch):
    found = request.getfixturevalue(request.param)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return ObjectStore.open(Settings(data_dir=tmp_path, object_store=found.location))


@pytest.mark.parametrize("signed", ["s3"], indirect=True)
def test_a_signed_url_serves_the_object_and_nothing_else(signed):
    signed.put(KEY, [b"bytes"])
    signed.put("acct_1/other", [b"secret"])
    url = signed.presign(KEY, 60, 'größe "1".txt', "text/plain")

    assert httpx.get(url).content == b"bytes"
    assert httpx.get(url.replace("exports/a.zip", "other")).status_code == 403
    assert httpx.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000")).status_code == 403
    assert httpx.put(url, content=b"other").status_code == 403
    signed.delete([KEY])
    assert httpx.get(url).status_code == 404


@pytest.mark.parametrize("signed", ["conditional_s3"], indirect=True)
def test_a_signed_url_names_the_file_and_its_type(signed):
    signed.put(KEY, [b"<script>"])

    answer = httpx.get(signed.presign(KEY, 60, 'größe "1".html\r\nx: y', "text/html"))

    assert answer.headers["content-type"] == "text/html"
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="gr__e _1_.html__x: y"; ')
    assert disposition.endswith("filename*=UTF-8''gr%C3%B6%C3%9Fe%20%221%22.html%0D%0Ax%3A%20y")


def test_encryption_is_asked_for(tmp_path, monkeypatch, conditional_s3):
    for name, value in conditional_s3.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(data_dir=tmp_path, object_store=conditional_s3.location)
    for setting, expected in (("AES256", "AES256"), ("aws:kms", "aws:kms"), ("aws:kms:key-1", "aws:kms")):
        objects = ObjectStore.open(settings.model_copy(update={"object_store_sse": setting}))
        objects.put(KEY, [b"bytes"])
        answer = httpx.get(objects.presign(KEY, 60, "a", "text/plain"))
        assert answer.headers["x-amz-server-side-encryption"] == expected

"""Store, read and delete objects in a folder and in S3."""

import io
import os
import socket
import subprocess
import sys

import pytest

from bench.harness.waiting import wait_until
from models.platform.errors import ConfigurationError, NotFound, Unavailable
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings

KEY = "acct_1/exports/a.zip"


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """Start an S3 service and return its URL."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = {"NANIO_ACCESS_KEY": "key-of-tests", "NANIO_SECRET_KEY": "secret-of-tests"}
    command = [sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            [*command, "--data-dir", str(folder)], env=os.environ | keys, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(params=["folder", "s3"])
def objects(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return ObjectStore.open(Settings(data_dir=tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3"))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-tests")
    return ObjectStore.open(Settings(data_dir=tmp_path, object_store="s3://bucket/sangha"))


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

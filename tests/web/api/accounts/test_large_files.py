"""Given a file of 500 MiB, when it is uploaded and read back, then the server holds a few megabytes of it."""

import hashlib
import threading
import time

import psutil
import pytest

from tests.web.api_client import ApiUser, app_client

MEBIBYTE = 1024 * 1024
SIZE = 500 * MEBIBYTE
BOUNDARY = "xxBOUNDARYxx"


@pytest.fixture(params=["folder", "s3"])
def large_user(request, settings, database, monkeypatch):
    """A user of an application with a folder, or with an S3 service."""
    if request.param == "s3":
        service = request.getfixturevalue("s3")
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        settings = settings.model_copy(update={"object_store": service.location})
    with app_client(settings) as client:
        yield ApiUser(client, database)


class PeakMemory:
    """The most bytes of this process, client included, beyond those at the beginning of the block."""

    def __enter__(self):
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self._peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.005):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def __exit__(self, *error):
        self._done.set()
        self._thread.join()

    @property
    def growth(self):
        return self._peak - self._before


def form(digest):
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'
    yield head.encode()
    block = bytes(range(256)) * 4096
    for number in range(SIZE // MEBIBYTE):
        piece = number.to_bytes(8, "big") + block[8:]
        digest.update(piece)
        yield piece
    end = f'\r\n--{BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--{BOUNDARY}--\r\n'
    yield end.encode()


@pytest.mark.timeout(600)
def test_a_large_file_takes_little_memory(large_user):
    sent, received = hashlib.sha256(), hashlib.sha256()
    large_user.request("GET", "/v1/files")
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}

    begun = time.perf_counter()
    with PeakMemory() as upload:
        created = large_user.request("POST", "/v1/files", content=form(sent), headers=headers, timeout=300)
    uploaded = time.perf_counter()
    assert created.status_code == 200, created.text
    with (
        PeakMemory() as download,
        large_user.client.stream(
            "GET",
            f"/v1/files/{created.json()['id']}/content",
            headers={"authorization": f"Bearer {large_user.token}"},
        ) as answer,
    ):
        for chunk in answer.iter_raw():
            received.update(chunk)
    seconds = time.perf_counter() - uploaded

    assert created.json()["bytes"] == SIZE
    assert received.digest() == sent.digest()
    print(f"upload {uploaded - begun:.1f} s, +{upload.growth / MEBIBYTE:.0f} MiB;", end=" ")
    print(f"download {seconds:.1f} s, +{download.growth / MEBIBYTE:.0f} MiB")
    assert upload.growth <= 64 * MEBIBYTE
    assert download.growth <= 64 * MEBIBYTE
    large_user.request("DELETE", f"/v1/files/{created.json()['id']}")

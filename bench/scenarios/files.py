"""Upload and download of a large file over HTTP, in a folder and in S3: megabytes a second, and memory.

The S3 service is nanio, from the development packages, on this machine: it shares the processor with the platform.
"""

import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
import psutil  # type: ignore[import-untyped]

from bench.figures import Figure, at_most
from bench.harness.client import Address
from bench.harness.processes import process_tree
from bench.harness.sse import CheckFailed
from bench.harness.stack import RunningPlatform
from bench.harness.waiting import wait_until
from bench.scenario import Bench
from ops.rabbitmq import free_ports

MEGABYTE = 1024 * 1024

#: Megabytes of the file, also with --full; files of each store.
SIZE, FULL_SIZE, FILES = 100, 500, 3

#: Seconds that a transfer may take.
PATIENCE = 600.0

#: Seconds between two looks at the memory.
INTERVAL = 0.005

BOUNDARY = "boundary-of-the-bench"
HEAD = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'.encode()
PURPOSE = 'content-disposition: form-data; name="purpose"\r\n\r\nuser_data'
TAIL = f"\r\n--{BOUNDARY}\r\n{PURPOSE}\r\n--{BOUNDARY}--\r\n".encode()

#: The variables of the S3 service's clients.
KEYS = {
    "AWS_ACCESS_KEY_ID": "key-of-the-bench",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-bench",
    "AWS_REGION": "us-east-1",
}


def files(bench: Bench) -> Sequence[Figure]:
    """Measure both stores."""
    size = FULL_SIZE if bench.full else SIZE
    with bench.stack.platform(workers=0) as platform:
        figures = measure(bench, platform, "folder", size)
    with (
        s3_service() as url,
        bench.stack.platform(workers=0, object_store="s3://bucket/sangha", object_store_endpoint=url) as platform,
    ):
        return [*figures, *measure(bench, platform, "S3", size)]


def measure(bench: Bench, platform: RunningPlatform, store: str, size: int) -> Sequence[Figure]:
    """Upload and download some files, each with other content."""
    (token,) = platform.tokens(1)
    memory = PeakMemory(platform.children["web"].pid)
    uploads, downloads, extra = [], [], []
    transfer(platform.address, token, 1)  # the first one loads modules
    for number in range(FILES):
        bench.progress.step(number, FILES, f"files of {size} MB, {store}")
        with memory.watched():
            up, down = transfer(platform.address, token, size)
        uploads.append(size / up)
        downloads.append(size / down)
        extra.append(memory.growth / MEGABYTE)
    return [
        Figure(f"upload, {store}", "MB/s", uploads),
        Figure(f"download, {store}", "MB/s", downloads),
        Figure(f"extra memory of the web process, {size} MB, {store}", "MB", extra, at_most(64), quantile=1),
    ]


def transfer(address: Address, token: str, size: int) -> tuple[float, float]:
    """Upload, download and delete a file. Returns the seconds up and down. Raises CheckFailed if it is not the same."""
    block = os.urandom(MEGABYTE)
    expected = hashlib.sha256()
    for _ in range(size):
        expected.update(block)
    began = time.perf_counter()
    file_id = orjson.loads(_request(address, token, "POST", "/v1/files", _form(block, size)).read())["id"]
    uploaded = time.perf_counter()
    received = hashlib.sha256()
    response = _request(address, token, "GET", f"/v1/files/{file_id}/content")
    while chunk := response.read(MEGABYTE):
        received.update(chunk)
    downloaded = time.perf_counter()
    _request(address, token, "DELETE", f"/v1/files/{file_id}").read()
    if received.digest() != expected.digest():
        raise CheckFailed(f"{file_id} has other content than was uploaded")
    return uploaded - began, downloaded - uploaded


def _form(block: bytes, size: int) -> tuple[int, Iterator[bytes]]:
    def content() -> Iterator[bytes]:
        yield HEAD
        for _ in range(size):
            yield block
        yield TAIL

    return len(HEAD) + size * len(block) + len(TAIL), content()


def _request(
    address: Address, token: str, method: str, path: str, form: tuple[int, Iterator[bytes]] | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {token}"}
    if form is not None:
        headers |= {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(form[0])}
    connection.request(method, path, form[1] if form else None, headers)
    response = connection.getresponse()
    if response.status >= 300:
        raise CheckFailed(f"{method} {path} was answered with {response.status}: {response.read().decode()[:500]}")
    return response


class PeakMemory:
    """The most bytes of a process and those below it, beyond what they had at the beginning of the block."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.growth = 0

    def _bytes(self) -> int:
        return sum(process.memory_info().rss for process in process_tree(self._process))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch until the end of the block."""
        before, done = self._bytes(), threading.Event()
        self.growth = 0

        def watch() -> None:
            while not done.wait(INTERVAL):
                self.growth = max(self.growth, self._bytes() - before)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextmanager
def s3_service() -> Iterator[str]:
    """Run an S3 service with an empty bucket, and set the variables of its clients. Returns its URL."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="sangha-bench-s3-") as folder:
        (Path(folder) / "bucket").mkdir()
        names = {"NANIO_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "NANIO_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
        command = [sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(
            [*command, "--data-dir", folder],
            env=os.environ | names,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = {name: os.environ.get(name) for name in KEYS}
        os.environ.update(KEYS)
        try:
            wait_until(_listens(port), what="the S3 service listens")
            yield f"http://127.0.0.1:{port}"
        finally:
            _restore(before)
            server.terminate()
            server.wait(10)


def _listens(port: int) -> Callable[[], bool]:
    def listens() -> bool:
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
        except OSError:
            return False
        return True

    return listens


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

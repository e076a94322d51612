"""Real S3 services on this machine: `nanio`, which checks signatures, and `moto`, which keeps conditions of writes."""

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.harness.waiting import wait_until

BUCKET = "bucket"

KEY_ID, SECRET = "key-of-tests", "secret-of-tests"


@dataclass(frozen=True, slots=True)
class S3Service:
    """A running service with an empty bucket `BUCKET`, as URL, and what the environment needs for it."""

    url: str

    @property
    def location(self) -> str:
        """What SANGHA_OBJECT_STORE should be: a prefix of its own, each time."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of the processes that use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }


@contextmanager
def nanio(folder: Path) -> Iterator[S3Service]:
    """Run a service that keeps objects in a folder until the end of the block."""
    (folder / BUCKET).mkdir(parents=True)
    keys = {"NANIO_ACCESS_KEY": KEY_ID, "NANIO_SECRET_KEY": SECRET}
    with _running(folder, ["nanio", "serve", "--host", "127.0.0.1", "--data-dir", str(folder), "--port"], keys) as url:
        yield S3Service(url)


@contextmanager
def moto(folder: Path) -> Iterator[S3Service]:
    """Run a service that keeps objects in memory until the end of the block."""
    folder.mkdir(parents=True)
    with _running(folder, ["moto.server", "-H", "127.0.0.1", "-p"], {}) as url:
        httpx.put(f"{url}/{BUCKET}").raise_for_status()
        yield S3Service(url)


@contextmanager
def _running(folder: Path, module: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Run a module that listens on a free port, which is its last argument."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *module, str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _listens(port), what=f"{module[0]} listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

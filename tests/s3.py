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


#: Runs nanio with a clock that is 20 minutes ahead.
AHEAD = """
import datetime, nanio.auth.sigv4, nanio.cli
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(minutes=20)
nanio.auth.sigv4.datetime = Clock
nanio.cli.main()
"""


@contextmanager
def nanio(folder: Path, *, ahead: bool = False) -> Iterator[S3Service]:
    """Run a service that keeps objects in a folder until the end of the block; its clock may be ahead."""
    (folder / BUCKET).mkdir(parents=True)
    keys = {"NANIO_ACCESS_KEY": KEY_ID, "NANIO_SECRET_KEY": SECRET}
    program = ["-c", AHEAD] if ahead else ["-m", "nanio"]
    arguments = ["serve", "--host", "127.0.0.1", "--data-dir", str(folder), "--port"]
    with _running(folder, [*program, *arguments], keys) as url:
        yield S3Service(url)


@contextmanager
def moto(folder: Path) -> Iterator[S3Service]:
    """Run a service that keeps objects in memory until the end of the block."""
    folder.mkdir(parents=True)
    with _running(folder, ["-m", "moto.server", "-H", "127.0.0.1", "-p"], {}) as url:
        httpx.put(f"{url}/{BUCKET}").raise_for_status()
        yield S3Service(url)


@contextmanager
def _running(folder: Path, program: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Run a program of Python that listens on a free port, which is its last argument."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *program, str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _listens(port), what="the S3 service listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

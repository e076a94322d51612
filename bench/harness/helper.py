"""Run a module of this package in its own process, and exchange JSON lines with it over its standard streams."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from bench.harness.sse import CheckFailed
from ops.child_process import launcher_command


class Helper:
    """The parent's side of the child's standard streams."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def send(self, message: object) -> None:
        """Write one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps(message) + b"\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        """Read one line. Raises CheckFailed when the process has ended, or reports an `error`."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        message = orjson.loads(line) if line else {"error": f"{self.process.args!r} has ended"}
        if isinstance(message, dict) and "error" in message:
            raise CheckFailed(message["error"])
        return message

    def request(self, message: object) -> Any:
        """Send one line and read its answer."""
        self.send(message)
        return self.receive()


@contextmanager
def helper(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Helper]:
    """Run `python -m module` until the end of the block; it dies with this process."""
    process = subprocess.Popen(
        launcher_command([sys.executable, "-m", module, *arguments], signal.SIGKILL),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        yield Helper(process)
    finally:
        process.kill()
        process.communicate()


def write_line(message: object) -> None:
    """Answer one line, from inside the process."""
    print(orjson.dumps(message, default=tuple).decode(), flush=True)  # a named tuple as an array

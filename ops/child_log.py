"""The log file of a child process: written by the child, rotated and read by its parent."""

import os
import re
import shutil
from pathlib import Path
from typing import IO

#: Bytes after which a log is rotated; one older file of that size is kept.
MAX_SIZE = 10_000_000

#: Bytes that are read from the end of the file at a time.
READ_SIZE = 65_536

#: How a line starts that follows the reason why a process of Erlang, such as RabbitMQ, does not start.
AFTER_REASON = "Crash dump is being written"


class ChildLog:
    """A file that child processes append to. Lines from before the last `mark_start` are not read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_until = 0
        self._start = 0

    def open(self) -> IO[bytes]:
        """Open the file for a child to append to, so that it can be truncated while the child writes."""
        return self.path.open("ab")

    def mark_start(self) -> None:
        """Note that a new process starts to write here."""
        self.rotate()
        self._read_until = self._start = self._size()

    def rotate(self) -> None:
        """Copy a file that is too large to NAME.log.1 and truncate it."""
        if self._size() > MAX_SIZE:
            shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
            os.truncate(self.path, 0)
            self._read_until = self._start = 0

    def new_lines(self, pattern: re.Pattern[str]) -> list[str]:
        """Return the complete lines since the last call that match a pattern."""
        self._read_until = max(self._read_until, self._size() - READ_SIZE)
        text = self._read(self._read_until)
        complete = text[: text.rfind(b"\n") + 1]
        self._read_until += len(complete)
        return [line for line in complete.decode(errors="replace").splitlines() if pattern.search(line)]

    def last_line(self) -> str:
        """Return the last line of the present process that is not empty, preferring errors of the `sangha` command."""
        lines = [line.strip() for line in self._read(self._start).decode(errors="replace").splitlines()]
        lines = [line for line in lines if line and not line.startswith(AFTER_REASON)]
        errors = [line for line in lines if line.startswith("sangha: ")]
        return (errors or lines or [f"it logged nothing; see {self.path}"])[-1].removeprefix("sangha: ")

    def _read(self, start: int) -> bytes:
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            file.seek(max(start, self._size() - READ_SIZE, 0))
            return file.read(READ_SIZE)

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

"""The log of a child process: appended to by the child, bounded and read by its parent."""

import os
import re
import shutil
from pathlib import Path
from typing import IO

#: A log grows to this many bytes, and one older file of that size is kept.
BOUND = 10_000_000

#: How much of the end is read at a time.
TAIL = 65_536


class Log:
    """A file that the child appends to. What was there at the last `mark` is not read again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0
        self._start = 0

    def open(self) -> IO[bytes]:
        """The file, for a child to append to: cutting it short needs no word with the child."""
        return self.path.open("ab")

    def mark(self) -> None:
        """A new process begins to write here."""
        self.bound()
        self._seen = self._start = self._size()

    def bound(self) -> None:
        """Move what is too long to NAME.log.1 and begin afresh."""
        if self._size() > BOUND:
            shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
            os.truncate(self.path, 0)
            self._seen = self._start = 0

    def fresh(self, pattern: re.Pattern[str]) -> list[str]:
        """The whole lines that came since the last call and match."""
        self._seen = max(self._seen, self._size() - TAIL)
        text = self._read(self._seen)
        whole = text[: text.rfind(b"\n") + 1]
        self._seen += len(whole)
        return [line for line in whole.decode(errors="replace").splitlines() if pattern.search(line)]

    def last_line(self) -> str:
        """The last line of the present process that says something, preferring what Sangha itself says."""
        lines = [line.strip() for line in self._read(self._start).decode(errors="replace").splitlines()]
        said = [line for line in lines if line]
        ours = [line for line in said if line.startswith("sangha: ")]
        return (ours or said or [f"it said nothing; see {self.path}"])[-1].removeprefix("sangha: ")

    def _read(self, start: int) -> bytes:
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            file.seek(max(start, self._size() - TAIL, 0))
            return file.read(TAIL)

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

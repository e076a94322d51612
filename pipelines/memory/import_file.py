"""`memory.import`: import memories from a file of JSON Lines, batch by batch.

A line's unique key is its job and its number, so that an attempt after a crash writes nothing twice; it continues
after the last line that was reported as progress. Invalid lines are reported, and the others are imported; an import
with too many invalid lines is given up. A file that the request had is deleted once the job has ended
(`models.accounts.files`); one that was uploaded before is kept.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import orjson
from pydantic import ValidationError

from models.accounts import files
from models.accounts.files import FileAccess
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.errors import NotFound, PermanentFailure
from models.platform.ids import new_id
from models.platform.object_store import DamagedObject, ObjectStore
from pipelines.files.content import read_content
from pipelines.memory.memory_input import MemoryInput
from pipelines.memory.store import BATCH, Embed, stoppable, write_memories
from pipelines.time_slice import TimeSlice

#: Invalid lines that are reported one by one; the others are only counted.
MAX_REPORTED_ERRORS = 100

#: Invalid lines after which an import is given up: the file has another format.
MAX_INVALID_LINES = 1000

#: UTF-8's byte order mark, which some editors write before the first line.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAX_LINE_BYTES = 256 * 1024

#: Seconds after which the lines read so far are written and reported, also where few of them are valid.
FLUSH_INTERVAL = 1.0


@dataclass(slots=True)
class ImportReport:
    """How far an import is: the lines and bytes read, and the counts of imported and invalid lines.

    errors  the first invalid lines with their messages
    """

    lines: int = 0
    offset: int = 0
    imported: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add_error(self, message: str) -> None:
        """Count the line read last as invalid."""
        self.failed += 1
        if len(self.errors) < MAX_REPORTED_ERRORS:
            self.errors.append({"line": self.lines, "message": message})

    def to_result(self) -> dict[str, Any]:
        """Convert to the job's result."""
        return {"lines": self.lines, "imported": self.imported, "failed": self.failed, "errors": self.errors}


def run(embed: Embed, objects: ObjectStore, attempt: Attempt) -> Ending:
    """Import the lines of a file into a user's space.

    Raises the reason to stop, Released after a time slice, EngineError, Unavailable, and PermanentFailure if the file
    was deleted or is damaged.
    """
    job = attempt.job
    # An attempt of an earlier version has stored no state: then all lines are read again, and written lines found.
    report = ImportReport(**(job.progress or {}).get("resume", {}))
    importer = _Importer(stoppable(embed, attempt), attempt, report)
    for line in _read_lines(_content(objects, attempt, report.offset), report):
        importer.add(line)
        if report.failed > MAX_INVALID_LINES:
            importer.flush()
            return _too_many_invalid_lines(attempt, report)
    importer.flush()
    return plain_ending(attempt, "completed", result=report.to_result())


class _Importer:
    """Collects the valid lines, and writes them in batches. Each flush stores how far the import is."""

    def __init__(self, embed: Embed, attempt: Attempt, report: ImportReport) -> None:
        self._embed, self._attempt, self._report = embed, attempt, report
        self._time_slice = TimeSlice(attempt)
        self._batch: list[NewMemory] = []
        self._flushed = time.monotonic()

    def add(self, line: bytes) -> None:
        """Add the line read last. Raises the reason to stop, and Released after a time slice."""
        if self._attempt.should_stop():
            self._attempt.check()
        job, report = self._attempt.job, self._report
        if report.lines == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        memory = _parse_line(report, line, f"{job.id} {report.lines}", job.created_at)
        if memory is not None:
            self._batch.append(memory)
        if len(self._batch) == BATCH or time.monotonic() > self._flushed + FLUSH_INTERVAL:
            self.flush()
            self._time_slice.check()

    def flush(self) -> None:
        """Write the batch, and store the progress by the lines read."""
        attempt, report = self._attempt, self._report
        attempt.check()
        if self._batch:
            written = write_memories(attempt.database, self._embed, SpaceKey.of_job(attempt.job), self._batch)
            report.imported += len(written)
            self._batch = []
        note = f"{report.failed} invalid lines" if report.failed else ""
        attempt.report_progress(report.lines, attempt.job.arguments.get("lines"), note=note, resume=asdict(report))
        self._flushed = time.monotonic()


def _too_many_invalid_lines(attempt: Attempt, report: ImportReport) -> Ending:
    message = (
        f"The import was given up at line {report.lines}: more than {MAX_INVALID_LINES} lines are invalid. "
        f"{report.imported} lines before it were imported."
    )
    return plain_ending(
        attempt, "failed", {"code": "too_many_invalid_lines", "message": message}, result=report.to_result()
    )


def _parse_line(report: ImportReport, line: bytes, key: str, now: datetime) -> NewMemory | None:
    """Parse a line; None for a blank line, and for an invalid one, which is reported."""
    if not line.strip():
        return None
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"is longer than {MAX_LINE_BYTES} bytes")
        if b"\\u0000" in line:
            raise ValueError("contains a NUL character")
        if not isinstance(parsed := orjson.loads(line), dict):
            raise ValueError("is not a JSON object")
        return MemoryInput.model_validate(parsed).to_new_memory(new_id("mem"), now, unique_key=key)
    except orjson.JSONDecodeError as error:
        report.add_error(f"is not valid JSON: {error}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        report.add_error(f"{path}: {first['msg']}" if path else first["msg"])
    except ValueError as error:
        report.add_error(str(error))
    return None


def _content(objects: ObjectStore, attempt: Attempt, offset: int) -> Iterator[bytes]:
    """Return the content of the file from an offset on, in chunks. Raises PermanentFailure and Unavailable."""
    try:
        yield from _chunks(objects, attempt, offset)
    except NotFound:
        raise PermanentFailure("The file of this import was deleted.", code="deleted") from None
    except DamagedObject:
        raise PermanentFailure("The file of this import is damaged.", code="damaged") from None


def _chunks(objects: ObjectStore, attempt: Attempt, offset: int) -> Iterator[bytes]:
    """Return the chunks of an uploaded file, or of the object that the request had. Raises NotFound."""
    arguments, account_id = attempt.job.arguments, attempt.job.account_id
    if (file_id := arguments.get("uploaded_file_id")) is None:
        return objects.get(arguments["object_key"], offset)
    with attempt.database.connection() as connection:
        file = files.read(connection, file_id, FileAccess(account_id, None, admin=True))
    if file is None:
        raise NotFound(f"File with id '{file_id}' not found.")
    return read_content(objects, file, offset)


def _read_lines(chunks: Iterator[bytes], report: ImportReport) -> Iterator[bytes]:
    """Read the lines after those that the report counts, and count each in it.

    A line over the limit is cut one byte behind it, to bound memory.
    """
    rest, cut = b"", 0
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _count(report, len(line) + cut + 1)
            cut = 0
            yield line
        if len(rest) > MAX_LINE_BYTES:
            cut += len(rest) - MAX_LINE_BYTES - 1
            rest = rest[: MAX_LINE_BYTES + 1]
    if rest:
        _count(report, len(rest) + cut)
        yield rest


def _count(report: ImportReport, size: int) -> None:
    report.lines += 1
    report.offset += size

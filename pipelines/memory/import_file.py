"""`memory.import`: import memories from a file of JSON Lines, batch by batch.

A line's unique key is its job and its number, so that an attempt after a crash writes nothing twice; it continues
after the last batch that was reported as progress. Invalid lines are reported, and the others are imported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson
from pydantic import ValidationError

from models.accounts import files
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory.memories import NewMemory
from models.platform.database import Connection
from models.platform.errors import NotFound, PermanentFailure
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from pipelines.memory.memory_input import MemoryInput
from pipelines.memory.store import BATCH, Embed, write_memories
from pipelines.memory.time_slice import TimeSlice

#: Invalid lines that are reported one by one; the others are only counted.
MAX_REPORTED_ERRORS = 100

#: UTF-8's byte order mark, which some editors write before the first line.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAX_LINE_BYTES = 256 * 1024


@dataclass(slots=True)
class ImportReport:
    """Counts the imported and the invalid lines of an import, with the messages of the first invalid ones."""

    imported: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add_error(self, number: int, message: str) -> None:
        """Count an invalid line."""
        self.failed += 1
        if len(self.errors) < MAX_REPORTED_ERRORS:
            self.errors.append({"line": number, "message": message})

    def to_result(self, lines: int) -> dict[str, Any]:
        """Convert to the job's result."""
        return {"lines": lines, "imported": self.imported, "failed": self.failed, "errors": self.errors}


def run(embed: Embed, objects: ObjectStore, attempt: Attempt) -> Ending:
    """Import the lines of a file into a user's space.

    Raises the reason to stop, Released after a time slice, EngineError, Unavailable, and PermanentFailure if the file
    was deleted.
    """
    job = attempt.job
    report, now, time_slice = ImportReport(), job.created_at, TimeSlice(attempt)
    lines_done = (job.progress or {}).get("done", 0)
    batch: list[NewMemory] = []
    number = 0
    for number, line in enumerate(_read_lines(objects, job.arguments["object_key"]), start=1):
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        memory = _parse_line(report, number, line, f"{job.id} {number}", now)
        if memory is not None and number <= lines_done:
            report.imported += 1  # by an earlier attempt
        elif memory is not None:
            batch.append(memory)
        if len(batch) == BATCH:
            time_slice.check()
            _write_batch(embed, attempt, report, batch, number)
            batch = []
    _write_batch(embed, attempt, report, batch, number)
    ending = plain_ending(attempt, "completed", result=report.to_result(number))
    return replace(ending, record=lambda connection: _expire_file(connection, attempt))


def _write_batch(embed: Embed, attempt: Attempt, report: ImportReport, batch: Sequence[NewMemory], number: int) -> None:
    attempt.check()
    written = write_memories(attempt.database, embed, attempt.job.account_id, attempt.job.arguments["user_id"], batch)
    report.imported += len(written)
    note = f"{report.failed} invalid lines" if report.failed else ""
    attempt.report_progress(number, attempt.job.arguments["lines"], note=note)


def _parse_line(report: ImportReport, number: int, line: bytes, key: str, now: datetime) -> NewMemory | None:
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
        report.add_error(number, f"is not valid JSON: {error}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        report.add_error(number, f"{path}: {first['msg']}" if path else first["msg"])
    except ValueError as error:
        report.add_error(number, str(error))
    return None


def _read_lines(objects: ObjectStore, key: str) -> Iterator[bytes]:
    """Read the lines of an object chunk by chunk. A line over the limit is cut one byte behind it, to bound memory."""
    rest = b""
    try:
        chunks = objects.get(key)
    except NotFound:
        raise PermanentFailure("The file of this import was deleted.", code="deleted") from None
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            rest = rest[: MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def _expire_file(connection: Connection, attempt: Attempt) -> None:
    """Mark the imported file as expired, so that maintenance deletes it."""
    files.expire(connection, attempt.job.arguments["file_id"], attempt.job.account_id)

"""Imports: JSON Lines from the object store, batch by batch.

A line is known by the job and its number, so an attempt that follows one that died writes nothing twice; it begins at
the batch behind the last one that was told. A line that is no memory is reported, and the others are imported.
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
from models.platform.object_store import Objects
from pipelines.memory.memory_input import MemoryInput
from pipelines.memory.store import BATCH, Embed, write_memories
from pipelines.memory.time_slice import TimeSlice

#: Faulty lines that are told one by one; the others are counted.
MAX_REPORTED_ERRORS = 100

#: What some editors put before the first line.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: Bytes of a line.
MAX_LINE_BYTES = 256 * 1024


@dataclass(slots=True)
class ImportReport:
    """How an import fares."""

    imported: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add_error(self, number: int, message: str) -> None:
        """A line is no memory."""
        self.failed += 1
        if len(self.errors) < MAX_REPORTED_ERRORS:
            self.errors.append({"line": number, "message": message})

    def to_result(self, lines: int) -> dict[str, Any]:
        """As the job's result has it."""
        return {"lines": lines, "imported": self.imported, "failed": self.failed, "errors": self.errors}


def run(embed: Embed, objects: Objects, attempt: Attempt) -> Ending:
    """Import a file's lines into a user's space. Raises PermanentFailure when the file is gone, and Unavailable."""
    job = attempt.job
    tally, now, shift = ImportReport(), job.created_at, TimeSlice(attempt)
    begin = (job.progress or {}).get("done", 0)
    batch: list[NewMemory] = []
    number = 0
    for number, line in enumerate(_lines(objects, job.arguments["object_key"]), start=1):
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        memory = _memory(tally, number, line, f"{job.id} {number}", now)
        if memory is not None and number <= begin:
            tally.imported += 1  # by an earlier attempt
        elif memory is not None:
            batch.append(memory)
        if len(batch) == BATCH:
            shift.check()
            _write(embed, attempt, tally, batch, number)
            batch = []
    _write(embed, attempt, tally, batch, number)
    ending = plain_ending(attempt, "completed", result=tally.to_result(number))
    return replace(ending, record=lambda connection: _let_go(connection, attempt))


def _write(embed: Embed, attempt: Attempt, tally: ImportReport, batch: Sequence[NewMemory], number: int) -> None:
    attempt.check()
    written = write_memories(attempt.database, embed, attempt.job.account_id, attempt.job.arguments["user_id"], batch)
    tally.imported += len(written)
    note = f"{tally.failed} lines are no memories" if tally.failed else ""
    attempt.report_progress(number, attempt.job.arguments["lines"], note=note)


def _memory(tally: ImportReport, number: int, line: bytes, key: str, now: datetime) -> NewMemory | None:
    """What a line says; None for one that is blank or wrong, which is noted."""
    if not line.strip():
        return None
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"is longer than {MAX_LINE_BYTES} bytes")
        if b"\\u0000" in line:
            raise ValueError("contains a NUL character")
        if not isinstance(told := orjson.loads(line), dict):
            raise ValueError("is no JSON object")
        return MemoryInput.model_validate(told).to_new_memory(new_id("mem"), now, unique_key=key)
    except orjson.JSONDecodeError as error:
        tally.add_error(number, f"is not valid JSON: {error}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        tally.add_error(number, f"{place}: {first['msg']}" if place else first["msg"])
    except ValueError as error:
        tally.add_error(number, str(error))
    return None


def _lines(objects: Objects, key: str) -> Iterator[bytes]:
    """The lines of an object, chunk by chunk. A line that never ends is cut where it is too long anyway."""
    rest = b""
    try:
        chunks = objects.get(key)
    except NotFound:
        raise PermanentFailure("The file of this import is gone.", code="deleted") from None
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            rest = rest[: MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def _let_go(connection: Connection, attempt: Attempt) -> None:
    """Nobody needs the file any more: maintenance deletes it."""
    files.expire(connection, attempt.job.arguments["file_id"], attempt.job.account_id)

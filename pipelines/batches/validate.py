"""Validate the input file of a batch, and insert its lines.

Each set of lines is inserted in one transaction with the offset behind it, from which another attempt continues. A
batch with errors fails as a whole, and none of its requests runs. What is wrong inside of a body is found when its line
begins: then only that line fails.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.accounts import files
from models.batches import lines, progress
from models.batches.batches import Batch
from models.batches.lines import Line
from models.jobs.attempt_context import Attempt
from models.platform.database import Connection
from models.platform.errors import NotFound
from pipelines.batches.input_lines import InputLine, LineError, is_blank, parse_line, split_lines
from pipelines.batches.worker import BatchContext, BatchWorker
from pipelines.files.content import read_content
from pipelines.requests.serving import Serving
from pipelines.time_slice import TimeSlice

#: Requests of a batch at most, and errors that it shows.
MAX_LINES, MAX_ERRORS = 50_000, 100

#: Lines of a file at most, with blank ones: 50 million of them take a minute.
MAX_FILE_LINES = 1_000_000

#: Lines and bytes of a set.
SET_LINES, SET_BYTES = 1000, 4 * 1024 * 1024


@dataclass(slots=True)
class _Validation:
    """The validation by one attempt, from the line after the last one that is stored."""

    batch: Batch
    check_model: Callable[[Any], None]
    read_bytes: int
    read_lines: int
    total: int
    found: list[Line] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether the set is to be stored."""
        return len(self.found) >= SET_LINES or self.bytes >= SET_BYTES or self.over

    @property
    def over(self) -> bool:
        """Whether there are so many errors, requests or lines that the rest is not read."""
        too_many = self.total > MAX_LINES or self.read_lines > MAX_FILE_LINES
        return too_many or len(self.batch.errors) + len(self.errors) >= MAX_ERRORS

    def add(self, line: InputLine) -> None:
        """Add the next line to the set."""
        self.read_bytes, self.read_lines = line.end, line.number
        if is_blank(line):
            return
        self.total += 1
        try:
            custom_id, body = parse_line(line, self.batch.endpoint, self.check_model)
        except LineError as error:
            self.errors.append(line_error(error.code, error.message, error.param, line.number))
            return
        self.found.append(Line(self.total, line.number, custom_id, body.decode()))
        self.bytes += len(body)

    def store(self, connection: Connection) -> None:
        """Insert the set, unless the batch fails anyway."""
        if not (self.batch.errors or self.errors):
            lines.insert(connection, self.batch, self.found)
        progress.advance_validation(
            connection,
            self.batch,
            read_bytes=self.read_bytes,
            read_lines=self.read_lines,
            total_lines=self.total,
            errors=self.errors,
        )


def line_error(code: str, message: str, param: str | None = None, line: int | None = None) -> dict[str, Any]:
    """Return an error of a batch as OpenAI has it."""
    return {"code": code, "message": message, "param": param, "line": line}


def validate(worker: BatchWorker, attempt: Attempt, batch: Batch, context: BatchContext) -> None:
    """Validate what is left of the file; then the batch is in progress, or fails.

    Raises the reason to stop, Unavailable, and Released after a time slice.
    """
    time_slice = TimeSlice(attempt)
    try:
        rest = _read(worker, attempt, batch)
        validation = _begin(batch, context)
        for line in rest:
            validation.add(line)
            if validation.full:
                if not _store(attempt, validation):
                    return
                if validation.over:
                    _conclude(attempt)
                    return
                validation = _begin(_reread(attempt), context)
                time_slice.check()
    except NotFound:
        _fail(attempt, [line_error("input_file_deleted", f"The file {batch.input_file_id} was deleted.")])
        return
    if validation.read_bytes == validation.batch.read_bytes or _store(attempt, validation):
        _conclude(attempt)


def _read(worker: BatchWorker, attempt: Attempt, batch: Batch) -> Iterator[InputLine]:
    """Return the lines that were not validated yet. Raises NotFound if the file was deleted."""
    with attempt.database.connection() as connection:
        file = files.read_any(connection, batch.input_file_id, batch.account_id)
    if file is None:
        raise NotFound("The file was deleted.")
    chunks = read_content(worker.objects, file, batch.read_bytes)
    return split_lines(chunks, offset=batch.read_bytes, number=batch.read_lines)


def _begin(batch: Batch, context: BatchContext) -> _Validation:
    check = _model_check(context.line.serving, batch.endpoint)
    return _Validation(batch, check, batch.read_bytes, batch.read_lines, batch.total_lines)


def _model_check(serving: Serving, endpoint: str) -> Callable[[Any], None]:
    """Return a function that raises LineError for a model that is not served."""
    known: set[str] = set()

    def check(model: Any) -> None:
        if endpoint == "/v1/embeddings" or not isinstance(model, str) or model in known:
            return
        try:
            serving.resolve(model)
        except NotFound as error:
            raise LineError("model_not_found", error.message, "body.model") from None
        known.add(model)

    return check


def _reread(attempt: Attempt) -> Batch:
    with attempt.database.connection() as connection:
        return progress.read_of_job(connection, attempt.job)


def _store(attempt: Attempt, validation: _Validation) -> bool:
    """Store a set. Returns False if the batch is no longer validated: it was cancelled."""
    with attempt.database.transaction() as connection:
        batch = progress.lock(connection, attempt.job)
        if batch.status != "validating":
            return False
        validation.store(connection)
    attempt.report_progress(validation.total, note="lines validated")
    return True


def _conclude(attempt: Attempt) -> None:
    """Let the batch begin, or fail with what is wrong with the file as a whole."""
    with attempt.database.transaction() as connection:
        batch = progress.lock(connection, attempt.job)
        errors = _errors_of_file(connection, batch)
        if errors or batch.errors:
            progress.stop(connection, batch, "failed", errors)
        else:
            progress.start(connection, batch)


def _errors_of_file(connection: Connection, batch: Batch) -> Sequence[dict[str, Any]]:
    if batch.read_lines > MAX_FILE_LINES:
        message = f"The input file has more than {MAX_FILE_LINES} lines."
        return [line_error("too_many_lines", message, None, batch.read_lines)]
    if batch.total_lines == 0:
        return [line_error("empty_file", "The input file has no requests.")]
    if batch.total_lines > MAX_LINES:
        message = f"The input file has more than {MAX_LINES} requests."
        return [line_error("too_many_tasks", message, None, batch.read_lines)]
    if batch.errors:
        return []
    return [
        line_error(
            "duplicate_custom_id",
            f"The custom_id '{duplicate.custom_id}' is that of line {duplicate.first_line}, too.",
            "custom_id",
            duplicate.line,
        )
        for duplicate in lines.duplicates(connection, batch, MAX_ERRORS)
    ]


def _fail(attempt: Attempt, errors: Sequence[dict[str, Any]]) -> None:
    with attempt.database.transaction() as connection:
        progress.stop(connection, progress.lock(connection, attempt.job), "failed", errors)

"""Write the files of a batch's results, in the order of its lines, and delete the lines.

A file's id is derived from the batch's, so that an attempt that follows a crash finds the file that is complete, and
writes one anew that is not. Answers are read in pages and stored in parts.
"""

from collections.abc import Iterator
from contextlib import suppress

from models.accounts.files import Audience
from models.batches import lines, progress
from models.batches.batches import Batch
from models.batches.lines import LineState
from models.jobs.attempt_context import Attempt
from models.platform.errors import NotAuthenticated
from models.platform.ids import IdGenerator
from models.platform.json_lines import escape_line_separators
from pipelines.batches.worker import BatchWorker
from pipelines.files.store import store_file
from pipelines.time_slice import TimeSlice

#: The purpose of the files.
OUTPUT_PURPOSE = "batch_output"

#: Lines that one transaction deletes.
DELETED = 2000


def write_files(worker: BatchWorker, attempt: Attempt, batch: Batch) -> None:
    """Store the files that have lines, and their ids with the batch. Raises Unavailable and the reason to stop."""
    if batch.output_file_id is None and batch.error_file_id is None:
        ids = IdGenerator(batch.id)
        output_id, error_id = ids.new("file"), ids.new("file")
        output = errors = None
        with suppress(NotAuthenticated):  # the user has left the account, and nobody else may read the answers
            output = _write(worker, attempt, batch, "completed", output_id) if batch.completed_lines else None
            errors = _write(worker, attempt, batch, "failed", error_id) if batch.failed_lines else None
        with attempt.database.transaction() as connection:
            progress.set_files(connection, progress.lock(connection, attempt.job), output, errors)
    delete_lines(attempt, batch)


def _write(worker: BatchWorker, attempt: Attempt, batch: Batch, state: LineState, file_id: str) -> str:
    audience: Audience = "user" if batch.user_id else "admins"
    name = "output" if state == "completed" else "error"
    store_file(
        attempt.database,
        worker.objects,
        account_id=batch.account_id,
        user_id=batch.user_id,
        file_id=file_id,
        filename=f"{batch.id}_{name}.jsonl",
        purpose=OUTPUT_PURPOSE,
        content_type="application/jsonl",
        content=_content(attempt, batch, state),
        audience=audience,
        days=None if batch.output_seconds is None else batch.output_seconds / 86400,
        job_id=attempt.job.id,
    )
    return file_id


def _content(attempt: Attempt, batch: Batch, state: LineState) -> Iterator[bytes]:
    after, done = 0, False
    while not done:
        attempt.check()
        with attempt.database.connection() as connection:
            rows = lines.answers(connection, batch, state, after=after)
        if rows:
            after = rows[-1]["position"]
            yield b"".join(escape_line_separators(row["answer"].encode()) + b"\n" for row in rows)
        done = not rows


def delete_lines(attempt: Attempt, batch: Batch) -> None:
    """Delete the lines of a batch that needs them no more. Raises the reason to stop, and Released."""
    time_slice, deleted = TimeSlice(attempt), DELETED
    while deleted:
        time_slice.check()
        with attempt.database.transaction() as connection:
            progress.lock(connection, attempt.job)
            deleted = lines.delete(connection, batch, DELETED)

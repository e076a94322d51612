"""How a batch goes on: the statements of its job's attempts, in transactions that lock the job first."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from models.accounts.ownership import Access
from models.batches.batches import Batch, BatchEnd, read
from models.jobs.attempts import lock_job
from models.jobs.jobs import Job
from models.jobs.usage import TokenUsage
from models.platform.database import Connection, fetch_one
from models.platform.errors import PermanentFailure

# Against a cancellation, which changes the batch without the job.
LOCK = "SELECT FROM batches WHERE id = %(id)s AND account_id = %(account_id)s FOR NO KEY UPDATE"


def read_of_job(connection: Connection, job: Job) -> Batch:
    """Return the batch of a job. Raises PermanentFailure if it has been deleted."""
    batch = read(connection, job.arguments["batch_id"], Access.account(job.account_id))
    if batch is None:
        raise PermanentFailure("The batch was deleted.", code="deleted")
    return batch


def lock(connection: Connection, job: Job) -> Batch:
    """Lock the job and its batch until the transaction ends, and return the batch.

    Raises Fenced for an attempt that has been superseded, and PermanentFailure if the batch has been deleted.
    """
    lock_job(connection, job)
    connection.execute(LOCK, {"id": job.arguments["batch_id"], "account_id": job.account_id})
    return read_of_job(connection, job)


VALIDATED = """
UPDATE batches SET read_bytes = %(read_bytes)s, read_lines = %(read_lines)s, total_lines = %(total_lines)s,
                   errors = errors || %(errors)s
WHERE id = %(id)s AND account_id = %(account_id)s
"""


def advance_validation(
    connection: Connection,
    batch: Batch,
    *,
    read_bytes: int,
    read_lines: int,
    total_lines: int,
    errors: Sequence[Mapping[str, Any]],
) -> None:
    """Store how far the input file has been validated, and the further errors."""
    parameters = {
        "id": batch.id,
        "account_id": batch.account_id,
        "read_bytes": read_bytes,
        "read_lines": read_lines,
        "total_lines": total_lines,
        "errors": Jsonb(list(errors)),
    }
    connection.execute(VALIDATED, parameters)


START = """
UPDATE batches SET status = 'in_progress', in_progress_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND status = 'validating'
"""


def start(connection: Connection, batch: Batch) -> None:
    """Let a validated batch begin with its lines."""
    connection.execute(START, {"id": batch.id, "account_id": batch.account_id})


STOP = """
UPDATE batches SET ends_as = %(ends_as)s, errors = errors || %(errors)s,
                   status = CASE WHEN status = 'cancelling' THEN status ELSE 'finalizing' END,
                   finalizing_at = CASE WHEN status = 'cancelling' THEN finalizing_at ELSE now() END
WHERE id = %(id)s AND account_id = %(account_id)s AND ends_as IS NULL
"""


def stop(connection: Connection, batch: Batch, ends_as: BatchEnd, errors: Sequence[Mapping[str, Any]] = ()) -> None:
    """Begin no further lines, and end the batch so once those that run have ended. The first call decides."""
    parameters = {"id": batch.id, "account_id": batch.account_id, "ends_as": ends_as, "errors": Jsonb(list(errors))}
    connection.execute(STOP, parameters)


ADVANCE = """
UPDATE batches SET begun_lines = begun_lines + %(begun)s, completed_lines = completed_lines + %(completed)s,
                   failed_lines = failed_lines + %(failed)s, input_tokens = input_tokens + %(input_tokens)s,
                   cached_tokens = cached_tokens + %(cached_tokens)s, output_tokens = output_tokens + %(output_tokens)s,
                   reasoning_tokens = reasoning_tokens + %(reasoning_tokens)s
WHERE id = %(id)s AND account_id = %(account_id)s
"""

NO_TOKENS = TokenUsage(0, 0, 0)


def advance(
    connection: Connection,
    batch: Batch,
    *,
    begun: int = 0,
    completed: int = 0,
    failed: int = 0,
    usage: TokenUsage = NO_TOKENS,
) -> None:
    """Count lines that have begun or ended, and the tokens of the latter."""
    parameters = {
        "id": batch.id,
        "account_id": batch.account_id,
        "begun": begun,
        "completed": completed,
        "failed": failed,
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
    connection.execute(ADVANCE, parameters)


SET_FILES = """
UPDATE batches SET output_file_id = %(output_file_id)s, error_file_id = %(error_file_id)s
WHERE id = %(id)s AND account_id = %(account_id)s
"""


def set_files(connection: Connection, batch: Batch, output_file_id: str | None, error_file_id: str | None) -> None:
    """Store the ids of the files of results, which are complete."""
    parameters = {
        "id": batch.id,
        "account_id": batch.account_id,
        "output_file_id": output_file_id,
        "error_file_id": error_file_id,
    }
    connection.execute(SET_FILES, parameters)


END = """
UPDATE batches SET status = %(ends_as)s, ends_as = %(ends_as)s, errors = errors || %(errors)s, ended_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND ended_at IS NULL
"""


def end(
    connection: Connection,
    batch_id: str,
    account_id: str,
    *,
    ends_as: BatchEnd,
    errors: Sequence[Mapping[str, Any]] = (),
) -> None:
    """End the batch in the transaction that ends its job."""
    parameters = {"id": batch_id, "account_id": account_id, "ends_as": ends_as, "errors": Jsonb(list(errors))}
    connection.execute(END, parameters)


IN_PROGRESS = "SELECT count(*) AS count FROM batches WHERE account_id = %(account_id)s AND status = 'in_progress'"


def in_progress(connection: Connection, account_id: str) -> int:
    """Return the number of the account's batches that are in progress."""
    row = fetch_one(connection, IN_PROGRESS, {"account_id": account_id})
    return int(row["count"]) if row else 0

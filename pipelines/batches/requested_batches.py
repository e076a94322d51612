"""Create and cancel batches, and the object that shows one."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from models.accounts import files
from models.accounts.accounts import Caller
from models.accounts.files import FileAccess
from models.accounts.ownership import Access
from models.accounts.plans import Limits
from models.batches import batches
from models.batches.batches import KIND, Batch, NewBatch
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, InvalidRequest, NotFound, TooLarge
from models.platform.texts import truncate
from pipelines.requests.lines import LINE_ENDPOINTS

#: The purpose of the file that a batch reads.
INPUT_PURPOSE = "batch"

#: Bytes of such a file at most.
MAX_FILE_BYTES = 200 * 1024 * 1024

#: Seconds of the units of a completion window, and the shortest and longest one.
UNITS: Mapping[str, int] = {"m": 60, "h": 3600, "d": 86400}
SHORTEST, LONGEST = 60, 14 * 86400


def window_seconds(completion_window: str) -> int:
    """Return the seconds of a completion window, such as `24h`. Raises InvalidRequest."""
    number, unit = completion_window[:-1], UNITS.get(completion_window[-1:])
    if unit and number.isascii() and number.isdigit() and len(number) <= 6:
        seconds = int(number) * unit
        if SHORTEST <= seconds <= LONGEST:
            return seconds
    message = f"Invalid completion_window: '{completion_window}'. It is a time from 1m to 14d, such as '24h'."
    raise InvalidRequest(message, param="completion_window", code="invalid_completion_window")


def create_batch(
    database: Database,
    caller: Caller,
    limits: Limits,
    *,
    batch_id: str,
    job_id: str,
    endpoint: str,
    input_file_id: str,
    completion_window: str = "24h",
    metadata: Mapping[str, str] | None = None,
    output_seconds: int | None = None,
) -> Batch:
    """Create a batch with its job. Announce the job to the queue after this. An existing one with the id is returned.

    `limits` are those of the account and of the caller's API key. Raises InvalidRequest, NotFound for a file that the
    caller cannot read, TooLarge, and LimitExceeded.
    """
    if endpoint not in LINE_ENDPOINTS:
        message = f"Invalid endpoint: '{endpoint}'. A batch has requests to one of {', '.join(LINE_ENDPOINTS)}."
        raise InvalidRequest(message, param="endpoint", code="invalid_endpoint")
    new = NewBatch(
        id=batch_id,
        account_id=caller.account_id,
        user_id=caller.user_id,
        key_rights=_key_rights(caller, limits),
        job_id=job_id,
        endpoint=endpoint,
        input_file_id=input_file_id,
        completion_window=completion_window,
        window_seconds=window_seconds(completion_window),
        metadata=metadata or {},
        output_seconds=output_seconds,
    )
    job = NewJob(KIND, caller.account_id, {"batch_id": batch_id}, id=job_id, owner_id=caller.user_id)
    with database.transaction() as connection:
        if batches.read(connection, batch_id, Access.own(caller)) is None:
            _check_input(connection, caller, input_file_id)
            check_unfinished_jobs(connection, caller.account_id, limits, size=job.total_bytes)
            if batches.insert(connection, new):
                enqueue(connection, job)
        batch = batches.read(connection, batch_id, Access.own(caller))
    assert batch is not None
    return batch


def _key_rights(caller: Caller, limits: Limits) -> dict[str, Any] | None:
    """Return what the caller's API key may do, which holds for the batch whatever becomes of the key."""
    if caller.key_id is None:
        return None
    models = None if limits.models is None else list(limits.models)
    return {"id": caller.key_id, "models": models, "memory": caller.memory, "residency": caller.residency}


def _check_input(connection: Connection, caller: Caller, file_id: str) -> None:
    file = files.read(connection, file_id, FileAccess.of(caller))
    if file is None:
        raise NotFound(f"File with id '{truncate(file_id)}' not found.", param="input_file_id")
    if file.purpose != INPUT_PURPOSE:
        message = f"The file {file_id} has the purpose '{file.purpose}'. A batch needs one with the purpose 'batch'."
        raise InvalidRequest(message, param="input_file_id", code="invalid_purpose")
    if file.bytes > MAX_FILE_BYTES:
        message = f"The file {file_id} has {file.bytes} bytes. The input of a batch has at most {MAX_FILE_BYTES} bytes."
        raise TooLarge(message, param="input_file_id", code="file_too_large")


def cancel_batch(database: Database, batch_id: str, access: Access) -> Batch:
    """Begin to cancel a batch, and return it. Announce its job to the queue after this.

    Its lines stop within seconds; those that have ended are in the output file. Raises NotFound, and Conflict for a
    batch that has ended or whose files are being written.
    """
    with database.transaction() as connection:
        batch = batches.read(connection, batch_id, access)
        if batch is not None:
            batches.cancel(connection, batch)
            batch = batches.read(connection, batch_id, access)
    if batch is None:
        raise NotFound(f"Batch with id '{truncate(batch_id)}' not found.", param="batch_id")
    if batch.status not in ("cancelling", "cancelled"):
        message = f"The batch cannot be cancelled: its status is '{batch.status}'."
        raise Conflict(message, code="batch_not_cancellable")
    return batch


def batch_object(batch: Batch) -> dict[str, Any]:
    """Return OpenAI's object of a batch, with the id of its job."""
    ended: dict[str, int | None] = {f"{status}_at": None for status in ("completed", "failed", "expired", "cancelled")}
    if batch.ended:
        ended[f"{batch.status}_at"] = _timestamp(batch.ended_at)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": list(batch.errors)} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id if batch.ended else None,
        "error_file_id": batch.error_file_id if batch.ended else None,
        "created_at": _timestamp(batch.created_at),
        "in_progress_at": _timestamp(batch.in_progress_at),
        "expires_at": _timestamp(batch.expires_at),
        "finalizing_at": _timestamp(batch.finalizing_at),
        "cancelling_at": _timestamp(batch.cancelling_at),
        **ended,
        "request_counts": {
            "total": batch.total_lines,
            "completed": batch.completed_lines,
            "failed": batch.failed_lines,
        },
        "usage": _usage(batch),
        "metadata": batch.metadata,
        "job_id": batch.job_id,
    }


def _usage(batch: Batch) -> dict[str, Any]:
    return {
        "input_tokens": batch.input_tokens,
        "input_tokens_details": {"cached_tokens": batch.cached_tokens},
        "output_tokens": batch.output_tokens,
        "output_tokens_details": {"reasoning_tokens": batch.reasoning_tokens},
        "total_tokens": batch.input_tokens + batch.output_tokens,
    }


def _timestamp(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None

"""Enqueue the jobs by which requests create, change, forget, import and search memories.

The caller nudges the queue afterwards. Each function raises LimitExceeded if the account has too many unfinished jobs.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

from models.accounts import files
from models.accounts.plans import Limits
from models.jobs.jobs import NewJob, enqueue, ignore_duplicate_id
from models.jobs.quota import check_unfinished_jobs
from models.memory.spaces import SpaceKey
from models.platform.database import Database
from models.platform.object_store import ObjectStore
from pipelines.memory.memory_input import MemoryInput

#: Days after which the file of an import that never ended is deleted.
FILE_DAYS = 7

#: How long an import may take, including the time that it waits behind others.
IMPORT_TIME = timedelta(days=2)


def enqueue_create(
    database: Database,
    key: SpaceKey,
    inputs: Sequence[MemoryInput],
    ids: Sequence[str],
    now: datetime,
    job_id: str,
    limits: Limits,
) -> None:
    """Enqueue a job that writes memories under these ids."""
    arguments = {"ids": list(ids), "now": now, "memories": [memory.to_job_arguments() for memory in inputs]}
    enqueue_memory_job(database, key, "memory.create", arguments, job_id, limits)


def enqueue_change(
    database: Database, key: SpaceKey, memory_id: str, update: dict[str, Any], job_id: str, limits: Limits
) -> None:
    """Enqueue a job that changes a memory's text."""
    enqueue_memory_job(database, key, "memory.change", {"memory_id": memory_id, "change": update}, job_id, limits)


def enqueue_forget(database: Database, key: SpaceKey, conversation_id: str | None, job_id: str, limits: Limits) -> None:
    """Enqueue a job that deletes the memories of a conversation, or all of the space if it is None."""
    enqueue_memory_job(database, key, "memory.forget", {"conversation_id": conversation_id}, job_id, limits)


def enqueue_import(
    database: Database,
    objects: ObjectStore,
    key: SpaceKey,
    file: BinaryIO,
    *,
    size: int,
    lines: int,
    job_id: str,
    limits: Limits,
) -> None:
    """Store a file of JSON Lines and enqueue a job that imports it. The file is deleted once the job has ended.

    The row is inserted before the object is stored: maintenance finds objects by their rows. Raises TooLarge and
    LimitExceeded if the account may not keep as many bytes, and Unavailable.
    """
    suffix = job_id.removeprefix("job_")
    file_id, object_key = f"file_{suffix}", f"{key.account_id}/imports/{suffix}.jsonl"
    with database.transaction() as connection:
        check_unfinished_jobs(connection, key.account_id, limits)
        files.check_stored_bytes(connection, key.account_id, limits, size, file_id=file_id)
        files.insert(
            connection,
            file_id,
            key.account_id,
            job_id=job_id,
            filename="memories.jsonl",
            purpose=files.IMPORT,
            content_type="application/x-ndjson",
            size=size,
            object_key=object_key,
            days=FILE_DAYS,
        )
    objects.put(object_key, file)
    arguments = {"file_id": file_id, "object_key": object_key, "lines": lines}
    deadline_at = datetime.now(UTC) + IMPORT_TIME
    enqueue_memory_job(database, key, "memory.import", arguments, job_id, limits, deadline_at=deadline_at)


def enqueue_import_of_file(database: Database, key: SpaceKey, file_id: str, job_id: str, limits: Limits) -> None:
    """Enqueue a job that imports a file of JSON Lines which exists already, and is kept."""
    deadline_at = datetime.now(UTC) + IMPORT_TIME
    arguments = {"uploaded_file_id": file_id}
    enqueue_memory_job(database, key, "memory.import", arguments, job_id, limits, deadline_at=deadline_at)


def enqueue_memory_job(
    database: Database,
    key: SpaceKey,
    kind: str,
    arguments: Mapping[str, Any],
    job_id: str,
    limits: Limits,
    *,
    deadline_at: datetime | None = None,
) -> None:
    """Enqueue a job on the memories of a space. An existing job with this id is left as it is."""
    arguments = {**key.arguments, **arguments}
    job = NewJob(kind, key.account_id, arguments, id=job_id, owner_id=key.user_id, deadline_at=deadline_at)
    with ignore_duplicate_id(), database.batch() as connection:
        check_unfinished_jobs(connection, key.account_id, limits, size=job.total_bytes)
        enqueue(connection, job)

"""Work on memories begins: what a request asks for as a job."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO

from models.accounts import files
from models.accounts.accounts import Caller
from models.accounts.plans import Limits
from models.jobs.jobs import NewJob, enqueue, ignore_duplicate_id
from models.jobs.quota import check_unfinished_jobs
from models.platform.database import Database
from models.platform.object_store import Objects
from pipelines.memory.memory_input import MemoryInput

#: Days that an import's file is kept, if nothing comes of it.
KEPT_DAYS = 7


def enqueue_create(
    database: Database,
    caller: Caller,
    given: Sequence[MemoryInput],
    ids: Sequence[str],
    now: datetime,
    job_id: str,
    limits: Limits,
) -> None:
    """Have memories written. Tell the queue afterwards. Raises TooMany."""
    told = {"ids": list(ids), "now": now, "memories": [memory.to_job_arguments() for memory in given]}
    enqueue_memory_job(database, caller, "memory.create", told, job_id, limits)


def enqueue_change(
    database: Database, caller: Caller, memory_id: str, told: dict[str, Any], job_id: str, limits: Limits
) -> None:
    """Have a memory's words changed. Tell the queue afterwards. Raises TooMany."""
    enqueue_memory_job(database, caller, "memory.change", {"memory_id": memory_id, "change": told}, job_id, limits)


def enqueue_forget(
    database: Database, caller: Caller, conversation_id: str | None, job_id: str, limits: Limits
) -> None:
    """Have the memories of a conversation deleted, or with None all. Tell the queue afterwards. Raises TooMany."""
    enqueue_memory_job(database, caller, "memory.forget", {"conversation_id": conversation_id}, job_id, limits)


def enqueue_import(
    database: Database,
    objects: Objects,
    caller: Caller,
    file: BinaryIO,
    *,
    size: int,
    lines: int,
    job_id: str,
    limits: Limits,
) -> None:
    """Have a file of JSON Lines imported. Tell the queue afterwards. Raises TooMany and Unavailable.

    Its row comes before its bytes: bytes without a row are never found.
    """
    suffix = job_id.removeprefix("job_")
    file_id, key = f"file_{suffix}", f"{caller.account_id}/imports/{suffix}.jsonl"
    with database.transaction() as connection:
        check_unfinished_jobs(connection, caller.account_id, limits)
        files.insert(
            connection,
            file_id,
            caller.account_id,
            job_id=job_id,
            filename="memories.jsonl",
            purpose=files.IMPORT,
            content_type="application/x-ndjson",
            size=size,
            object_key=key,
            days=KEPT_DAYS,
        )
    objects.put(key, file)
    told = {"file_id": file_id, "object_key": key, "lines": lines}
    enqueue_memory_job(database, caller, "memory.import", told, job_id, limits)


def enqueue_memory_job(
    database: Database, caller: Caller, kind: str, arguments: Mapping[str, Any], job_id: str, limits: Limits
) -> None:
    """Enqueue work on the caller's memories. Tell the queue afterwards. Raises TooMany."""
    told = {"user_id": caller.user_id, **arguments}
    with ignore_duplicate_id(), database.batch() as connection:
        check_unfinished_jobs(connection, caller.account_id, limits)
        enqueue(connection, NewJob(kind, caller.account_id, told, id=job_id))

"""Erasure: nothing personal is left of an account or a person; what money needs stays.

The request has closed the account already, so that nobody comes in. This job waits until what still ran has ended, then
deletes batch by batch. Each batch commits by itself: whatever dies in between, the next attempt goes on.
"""

import time
from collections.abc import Sequence

import redis

from models.accounts import account_data, files
from models.jobs import cancellation
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.journal import journal
from models.platform.object_store import ObjectStore
from pipelines.memory.forget_memories import drop_indexes

#: Seconds between two looks at what still runs.
POLL = 0.2


def run(client: redis.Redis, objects: ObjectStore, attempt: Attempt) -> Ending:
    """Erase the accounts and persons that the job names. Raises Unavailable and the reason to stop."""
    arguments = attempt.job.arguments
    erased = 0
    for account_id in arguments["account_ids"]:
        _settle(client, attempt, account_id)
        erased += _erase_account(client, objects, attempt, account_id)
    people = sum(_erase_person(attempt, user_id) for user_id in arguments["user_ids"])
    result = {"accounts": len(arguments["account_ids"]), "people": people, "rows": erased}
    return plain_ending(attempt, "completed", result=result)


def _settle(client: redis.Redis, attempt: Attempt, account_id: str) -> None:
    """Cancel what is unfinished and wait for its end: a worker that writes now would write into the void."""
    while unfinished := _unfinished(attempt, account_id):
        attempt.check()
        for job_id in unfinished:
            with attempt.database.transaction() as connection:
                told = cancellation.cancel(connection, job_id, account_id)
            if told.running:
                journal.publish_cancellations(client, told.running)
        time.sleep(POLL)


def _unfinished(attempt: Attempt, account_id: str) -> list[str]:
    with attempt.database.connection() as connection:
        return account_data.unfinished_jobs(connection, account_id)


def _erase_account(client: redis.Redis, objects: ObjectStore, attempt: Attempt, account_id: str) -> int:
    erased = _erase_files(objects, attempt, account_id)
    drop_indexes(attempt.database, account_id)
    for table in account_data.ERASED:
        while gone := _erase_batch(attempt, table, account_id):
            erased += len(gone)
            if table == "jobs":
                _forget_journals(client, gone)
            attempt.report_progress(erased, note=table)
    return erased


def _erase_files(objects: ObjectStore, attempt: Attempt, account_id: str) -> int:
    """The bytes first: a row without bytes can be deleted again, bytes without a row are never found."""
    erased = 0
    while True:
        attempt.check()
        with attempt.database.connection() as connection:
            found = account_data.list_files(connection, account_id)
        if not found:
            return erased
        objects.delete(key for _, key in found)
        with attempt.database.transaction() as connection:
            for file_id, _ in found:
                files.delete(connection, file_id, account_id)
        erased += len(found)


def _erase_batch(attempt: Attempt, table: str, account_id: str) -> list[str]:
    attempt.check()
    with attempt.database.transaction() as connection:
        return account_data.erase_batch(connection, table, account_id)


def _forget_journals(client: redis.Redis, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        journal.delete(client, job_id)


def _erase_person(attempt: Attempt, user_id: str) -> bool:
    attempt.check()
    with attempt.database.transaction() as connection:
        return account_data.erase_user(connection, user_id)

"""Erase deleted accounts and users. Billing records are kept, without personal data.

The request has already closed the account, so that no credentials work. This job cancels unfinished jobs, waits for
their end, and deletes in batches. Each batch commits by itself, so that the next attempt continues after a crash.
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

#: Seconds between two checks for unfinished jobs.
POLL_INTERVAL = 0.2


def run(client: redis.Redis, objects: ObjectStore, attempt: Attempt) -> Ending:
    """Erase the accounts and users of the job. Raises Unavailable and the attempt's stop reason."""
    arguments = attempt.job.arguments
    erased = 0
    for account_id in arguments["account_ids"]:
        _cancel_jobs(client, attempt, account_id)
        erased += _erase_account(client, objects, attempt, account_id)
    users = sum(_erase_user(attempt, user_id) for user_id in arguments["user_ids"])
    result = {"accounts": len(arguments["account_ids"]), "people": users, "rows": erased}
    return plain_ending(attempt, "completed", result=result)


def _cancel_jobs(client: redis.Redis, attempt: Attempt, account_id: str) -> None:
    """Cancel unfinished jobs and wait for their end, so that no worker writes while their rows are deleted."""
    while unfinished := _unfinished_jobs(attempt, account_id):
        attempt.check()
        for job_id in unfinished:
            with attempt.database.transaction() as connection:
                cancelled = cancellation.cancel(connection, job_id, account_id)
            if cancelled.running:
                journal.publish_cancellations(client, cancelled.running)
        time.sleep(POLL_INTERVAL)


def _unfinished_jobs(attempt: Attempt, account_id: str) -> list[str]:
    with attempt.database.connection() as connection:
        return account_data.unfinished_jobs(connection, account_id)


def _erase_account(client: redis.Redis, objects: ObjectStore, attempt: Attempt, account_id: str) -> int:
    erased = _erase_files(objects, attempt, account_id)
    for table in account_data.ERASED:
        while row_ids := _erase_batch(attempt, table, account_id):
            erased += len(row_ids)
            if table in ("jobs", "ended_jobs"):
                _delete_journals(client, row_ids)
            attempt.report_progress(erased, note=table)
    return erased


def _erase_files(objects: ObjectStore, attempt: Attempt, account_id: str) -> int:
    """Delete objects before their rows: a row without an object is found again, an object without a row is not."""
    erased = 0
    while True:
        attempt.check()
        with attempt.database.connection() as connection:
            rows = account_data.list_files(connection, account_id)
        if not rows:
            return erased
        objects.delete(key for _, key in rows)
        with attempt.database.transaction() as connection:
            for file_id, _ in rows:
                files.delete(connection, file_id, account_id)
        erased += len(rows)


def _erase_batch(attempt: Attempt, table: str, account_id: str) -> list[str]:
    attempt.check()
    with attempt.database.transaction() as connection:
        return account_data.erase_batch(connection, table, account_id)


def _delete_journals(client: redis.Redis, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        journal.delete(client, job_id)


def _erase_user(attempt: Attempt, user_id: str) -> bool:
    attempt.check()
    with attempt.database.transaction() as connection:
        return account_data.erase_user(connection, user_id)

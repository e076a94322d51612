"""Erase deleted accounts and users. Billing records are kept, without personal data.

The request has already closed the account, so that no credentials work. This job cancels unfinished jobs, is released
until they have ended, and deletes in batches. Each batch commits by itself, so that the next attempt continues after a
crash.

    Postgres      the tables of `models.accounts.account_data`, in its order; of a user whose account has other
                  members, or who has left it, those of `models.accounts.member_data`; the rows of users
    Redis         the journals of jobs and their announcements in the shard streams
    object store  the files of the account, and whatever else begins with its id; or the files of the user with all
                  exports of the account
    mailbox       e-mails to the users, and invitations to the account, where a folder replaces the mail server

What expires by itself within minutes or a day: see "Erasure" in docs/guides/operate.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import redis

from models.accounts import account_data, files, member_data
from models.accounts.account_data import AccountData
from models.accounts.files import FileKeys
from models.accounts.member_data import MemberData
from models.jobs import cancellation
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.journal import journal, shards
from models.platform.errors import Released
from models.platform.object_store import ObjectStore
from pipelines.delivery.mailers import FolderMailer
from pipelines.time_slice import TimeSlice

#: Seconds until the next attempt looks whether the cancelled jobs have ended. No thread waits meanwhile.
SETTLE_DELAY = 1.0

#: Jobs whose announcements one pass over the shards deletes.
ANNOUNCED_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Stores:
    """Where data of accounts is, besides Postgres. `mailbox` is None with a mail server."""

    client: redis.Redis
    objects: ObjectStore
    mailbox: FolderMailer | None = None


def run(stores: Stores, attempt: Attempt) -> Ending:
    """Erase the accounts and users of the job.

    Raises Unavailable, the attempt's stop reason, and Released while jobs of an account have not ended, and after a
    time slice.
    """
    erasure = _Erasure(stores, attempt)
    arguments = attempt.job.arguments
    for account_id in arguments["account_ids"]:
        erasure.erase_data(AccountData(account_id))
    # Jobs of earlier versions name no shared accounts.
    shared = arguments.get("shared_account_ids", [])
    users = sum(erasure.erase_user(user_id, shared) for user_id in arguments["user_ids"])
    result = {
        "accounts": len(arguments["account_ids"]),
        "people": users,
        "rows": erasure.erased,
        "objects_without_row": erasure.without_row,
    }
    return plain_ending(attempt, "completed", result=result)


class _Erasure:
    """The erasure by one attempt. `erased` counts the rows of all attempts; `without_row` has keys of objects."""

    def __init__(self, stores: Stores, attempt: Attempt) -> None:
        self._stores, self._attempt = stores, attempt
        self._time_slice = TimeSlice(attempt)
        self.erased: int = (attempt.job.progress or {}).get("done", 0)
        self.without_row: list[str] = []

    def erase_data(self, data: AccountData | MemberData) -> None:
        """Delete files, rows and journals. Raises the reason to stop, and Released."""
        self._cancel_jobs(data)
        self._erase_announcements(data)
        self._erase_files(data)
        for table in data.tables:
            self._erase_table(data, table)
        # An export of the account may have begun since, with texts that were not deleted yet.
        self._cancel_jobs(data)
        self._erase_files(data)
        if isinstance(data, AccountData):
            self.without_row += self._stores.objects.delete_prefix(data.account_id)

    def _cancel_jobs(self, data: AccountData | MemberData) -> None:
        """Cancel unfinished jobs. Raises Released until they have ended: no worker may write while rows are deleted."""
        while job_ids := self._unfinished_jobs(data, uncancelled=True):
            for job_id in job_ids:
                self._cancel(job_id, data.account_id)
                self._time_slice.check()
        if self._unfinished_jobs(data):
            raise Released("jobs of the account have not ended yet", delay=SETTLE_DELAY)

    def _unfinished_jobs(self, data: AccountData | MemberData, *, uncancelled: bool = False) -> list[str]:
        with self._attempt.database.connection() as connection:
            return data.unfinished_jobs(connection, uncancelled=uncancelled)

    def _cancel(self, job_id: str, account_id: str) -> None:
        with self._attempt.database.transaction() as connection:
            cancelled = cancellation.cancel(connection, job_id, account_id)
        journal.publish_cancellations(self._stores.client, cancelled.running)

    def _erase_announcements(self, data: AccountData | MemberData) -> None:
        with self._attempt.database.connection() as connection:
            announced = data.recently_ended_jobs(connection, seconds=2 * shards.KEPT)
        for start in range(0, len(announced), ANNOUNCED_BATCH):
            shards.delete_entries(self._stores.client, announced[start : start + ANNOUNCED_BATCH])

    def _erase_table(self, data: AccountData | MemberData, table: str) -> None:
        last_id = ""
        while row_ids := self._erase_batch(data, table, last_id):
            last_id = row_ids[-1]
            self.erased += len(row_ids)
            if table in ("jobs", "ended_jobs"):
                self._forget_jobs(row_ids)
            self._attempt.report_progress(self.erased, note=table)
            self._time_slice.check()

    def _erase_batch(self, data: AccountData | MemberData, table: str, after: str) -> list[str]:
        with self._attempt.database.transaction() as connection:
            return data.erase_batch(connection, table, after)

    def _erase_files(self, data: AccountData | MemberData) -> None:
        """Delete objects before their rows: a row without an object is found again, an object without a row is not."""
        while rows := self._list_files(data):
            self._stores.objects.delete(key for file in rows for key in file.keys)
            with self._attempt.database.transaction() as connection:
                for file in rows:
                    files.delete(connection, file.id, data.account_id)
            self.erased += len(rows)
            self._attempt.report_progress(self.erased, note="files")
            self._time_slice.check()

    def _list_files(self, data: AccountData | MemberData) -> list[FileKeys]:
        with self._attempt.database.connection() as connection:
            return data.list_files(connection)

    def erase_user(self, user_id: str, shared_account_ids: Sequence[str]) -> bool:
        """Delete a user who is in no account any more, with their data in accounts of others and their e-mails.

        Returns whether there was one. Raises the reason to stop, and Released.
        """
        self._attempt.check()
        for account_id in self._left_accounts(user_id, shared_account_ids):
            self.erase_data(MemberData(account_id, user_id))
        if self._stores.mailbox is not None:
            with self._attempt.database.connection() as connection:
                self._stores.mailbox.delete(account_data.email_jobs_of(connection, user_id))
        with self._attempt.database.transaction() as connection:
            return account_data.erase_user(connection, user_id)

    def _left_accounts(self, user_id: str, shared_account_ids: Sequence[str]) -> list[str]:
        with self._attempt.database.connection() as connection:
            if member_data.is_member(connection, user_id):
                return []
            return sorted({*shared_account_ids, *member_data.left_accounts(connection, user_id)})

    def _forget_jobs(self, job_ids: Sequence[str]) -> None:
        """Delete what deleted jobs have left outside of Postgres."""
        for job_id in job_ids:
            journal.delete(self._stores.client, job_id)
        if self._stores.mailbox is not None:
            self._stores.mailbox.delete(job_ids)

"""Closing an account, or leaving for good. It takes effect at once; a job then deletes what is there."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from models.accounts import account_data, audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Connection, Database
from models.platform.errors import Conflict

#: Requests that came in before the door was closed have ended by then.
DELAY = timedelta(seconds=10)


def close_account(database: Database, caller: Caller, origin: RequestOrigin) -> str:
    """Close the caller's account and have it erased, with its members who belong nowhere else. Returns the job's id."""
    with database.transaction() as connection:
        return _close(connection, [caller.account_id], [], caller, origin)


def delete_user(database: Database, caller: Caller, origin: RequestOrigin) -> str:
    """Have a person erased, with the accounts that are theirs alone. Returns the job's id.

    Raises Conflict `sole_owner` while others belong to an account that only this person owns.
    """
    with database.transaction() as connection:
        theirs = []
        for account in account_data.lock_accounts_of(connection, caller.user_id):
            if account.others == 0:
                theirs.append(account.id)
            elif account.sole_owner:
                message = f"Others belong to {account.id}, which only you own: make one of them an owner first."
                raise Conflict(message, code="sole_owner")
        account_data.close_user(connection, caller.user_id)
        return _close(connection, theirs, [caller.user_id], caller, origin)


def _close(
    connection: Connection, account_ids: Sequence[str], user_ids: Sequence[str], caller: Caller, origin: RequestOrigin
) -> str:
    people = {*user_ids}
    for account_id in account_ids:
        people.update(account_data.close_account(connection, account_id))
        # Told without an account: the account's own log is about to go.
        audit.record(connection, "account.closed", RequestOrigin(request_id=origin.request_id), target=account_id)
    job = NewJob(
        "data.erase",
        PLATFORM_ACCOUNT,
        {"account_ids": list(account_ids), "user_ids": sorted(people)},
        run_at=datetime.now(UTC) + DELAY,
    )
    enqueue(connection, job)
    return job.id

"""Delete an account or a user: credentials stop working at once, and a job erases the data."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from models.accounts import account_data, audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.delivery import events
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Connection, Database
from models.platform.errors import Conflict
from pipelines.billing import customers

#: How long the job waits, so that requests that were authenticated before the deletion have ended.
ERASE_DELAY = timedelta(seconds=10)


def close_account(database: Database, caller: Caller, origin: RequestOrigin) -> str:
    """Close the caller's account and erase it, with members who belong to no other account. Returns the job's id."""
    with database.transaction() as connection:
        return _close(connection, [caller.account_id], [], caller, origin)


def delete_user(database: Database, caller: Caller, origin: RequestOrigin) -> str:
    """Erase the caller, their data in shared accounts, and accounts without another member. Returns the job's id.

    Raises Conflict `sole_owner` while an account with other members has no other owner.
    """
    with database.transaction() as connection:
        account_ids, shared_account_ids = [], []
        for account in account_data.lock_accounts_of(connection, caller.user_id):
            if account.others == 0:
                account_ids.append(account.id)
            elif account.sole_owner:
                message = (
                    f"You are the only owner of {account.id}, which has other members. Make one of them an owner first."
                )
                raise Conflict(message, code="sole_owner")
            else:
                shared_account_ids.append(account.id)
        account_data.close_user(connection, caller.user_id)
        for account_id in shared_account_ids:
            events.record(connection, account_id, "member.removed", {"id": caller.user_id})
        return _close(connection, account_ids, [caller.user_id], caller, origin, shared_account_ids)


def _close(
    connection: Connection,
    account_ids: Sequence[str],
    user_ids: Sequence[str],
    caller: Caller,
    origin: RequestOrigin,
    shared_account_ids: Sequence[str] = (),
) -> str:
    erased_user_ids, run_at = {*user_ids}, datetime.now(UTC) + ERASE_DELAY
    for account_id in account_ids:
        erased_user_ids.update(account_data.close_account(connection, account_id))
        customers.enqueue_deletions(connection, account_id, run_at)
        # Recorded without an account, since the account's own audit log is erased.
        audit.record(connection, "account.closed", RequestOrigin(request_id=origin.request_id), target=account_id)
    job = NewJob(
        "data.erase",
        PLATFORM_ACCOUNT,
        {
            "account_ids": list(account_ids),
            "user_ids": sorted(erased_user_ids),
            "shared_account_ids": list(shared_account_ids),
        },
        run_at=run_at,
        lane=f"erase {caller.account_id}",  # so that a long erasure yields to others, and to other maintenance
    )
    enqueue(connection, job)
    return job.id

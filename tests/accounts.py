"""Accounts that tests delete."""

from collections.abc import Sequence

from models.platform.database import Database
from models.platform.errors import Unavailable

#: More than one conflict in a row is unlikely: the server that works on the account completes its transaction first.
ATTEMPTS = 5


def delete_accounts(database: Database, account_ids: Sequence[str], user_ids: Sequence[str] = ()) -> None:
    """Delete accounts with everything in them, and users.

    A server of the test may still work on a job of the account, such as the cancellation after a client has
    disconnected. If Postgres then breaks a deadlock by rolling back the deletion, it is repeated.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _delete(database, account_ids, user_ids)
        except Unavailable:
            if attempt == ATTEMPTS:
                raise


def _delete(database: Database, account_ids: Sequence[str], user_ids: Sequence[str]) -> None:
    with database.transaction() as connection:
        connection.execute("DELETE FROM postings WHERE account_id = ANY(%s)", (list(account_ids),))
        connection.execute("DELETE FROM accounts WHERE id = ANY(%s)", (list(account_ids),))
        connection.execute("DELETE FROM users WHERE id = ANY(%s)", (list(user_ids),))

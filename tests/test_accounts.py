"""Tests of the deletion of tests' accounts."""

import threading

from models.accounts import accounts
from models.platform.database import Database, fetch_one
from models.platform.ids import new_id
from tests.accounts import delete_accounts

BLOCKED_BY = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


def wait_until_blocked_by(database: Database, pid: int) -> None:
    """Wait for a statement that waits for a lock of the backend `pid`."""
    while True:
        with database.connection() as connection:
            if fetch_one(connection, BLOCKED_BY, (pid,)):
                return


def test_deletion_is_repeated_after_a_deadlock(database):
    # Given a transaction that has locked a row which the deletion of the account has to delete
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
    deletion = threading.Thread(target=delete_accounts, args=(database, [member.account_id], [member.user_id]))
    with database.transaction() as connection:
        connection.execute("SELECT 1 FROM memberships WHERE account_id = %s FOR UPDATE", (member.account_id,))
        deletion.start()
        wait_until_blocked_by(database, connection.info.backend_pid)
        # When it then needs the account, which the deletion has locked
        connection.execute("SELECT 1 FROM accounts WHERE id = %s FOR KEY SHARE", (member.account_id,))
    deletion.join()
    # Then the deletion, which Postgres has rolled back, is repeated
    with database.connection() as connection:
        assert fetch_one(connection, "SELECT 1 FROM accounts WHERE id = %s", (member.account_id,)) is None

"""The billing details of accounts."""

import pytest

from models.billing import billing_details
from models.platform.database import fetch_one
from models.platform.errors import Unavailable


def billed_since(connection, account):
    return fetch_one(connection, "SELECT billed_since FROM accounts WHERE id = %(id)s", {"id": account})["billed_since"]


def test_an_account_is_billed_from_its_first_details_on(database, account):
    with database.transaction() as connection:
        details = billing_details.ensure(connection, account, "EUR")
        since = billed_since(connection, account)
        assert (details.currency, details.name) == ("EUR", "a test")
        assert since is not None

        assert billing_details.ensure(connection, account) == details
        assert billed_since(connection, account) == since


def test_nobody_is_billed_while_an_earlier_version_may_run(empty_database):
    """Its workers end jobs without a posting."""
    # Given an upgrade that is not finalized
    database = empty_database
    with database.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES ('acct_1', 'a test')")
        connection.execute("UPDATE schema_compatibility SET oldest_code = '0030'")

    # When an account is to be billed
    with pytest.raises(Unavailable, match="finalized"), database.transaction() as connection:
        billing_details.ensure(connection, "acct_1", "EUR")

    # Then it is not, until the upgrade is finalized
    with database.connection() as connection:
        assert billed_since(connection, "acct_1") is None
        connection.execute("UPDATE schema_compatibility SET oldest_code = '9000'")
    with database.transaction() as connection:
        billing_details.ensure(connection, "acct_1", "EUR")
        assert billed_since(connection, "acct_1") is not None

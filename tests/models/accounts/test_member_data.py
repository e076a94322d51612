"""Every table with an account_id is erased for a user of a shared account, or listed as an exception."""

from models.accounts import member_data
from tests.models.accounts.test_account_data import owned_tables


def test_every_table_is_erased_or_listed_as_kept(database):
    listed = set(member_data.ERASED) | set(member_data.KEPT)

    assert owned_tables(database) - listed == set()

"""Every table with an account_id is exported and erased, or listed as an exception."""

from models.accounts import account_data, account_exports

# Without views and the partitions of a table.
OWNED = """
SELECT relname AS table_name FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE attname = 'account_id' AND relkind IN ('r', 'p') AND NOT relispartition
  AND relnamespace = 'public'::regnamespace
"""


def owned_tables(database):
    with database.connection() as connection:
        return {row["table_name"] for row in connection.execute(OWNED)}


def test_every_table_is_exported_or_listed_as_not_exported(database):
    listed = set(account_exports.EXPORTS) | set(account_exports.NOT_EXPORTED)

    assert owned_tables(database) - listed == set()


def test_every_table_is_erased_or_listed_as_kept(database):
    listed = set(account_data.ERASED) | set(account_data.KEPT)

    assert owned_tables(database) - listed == set()


def test_no_secret_is_exported():
    for name, statement in account_exports.EXPORTS.items():
        assert "hash" not in statement, name
        assert "*" not in statement, name

"""Given the schema, then every table of an account is exported and erased, or it is said why not."""

from models.accounts import account_data

# Tables with a column that names an account.
OWNED = """
SELECT table_name FROM information_schema.columns
WHERE column_name = 'account_id' AND table_schema = 'public'
"""


def owned_tables(database):
    with database.connection() as connection:
        return {row["table_name"] for row in connection.execute(OWNED)}


def test_every_table_of_an_account_is_exported_or_it_is_said_why_not(database):
    told = set(account_data.EXPORTS) | set(account_data.NOT_EXPORTED)

    assert owned_tables(database) - told == set()


def test_every_table_of_an_account_is_erased_or_it_is_said_why_not(database):
    told = set(account_data.ERASED) | set(account_data.KEPT)

    assert owned_tables(database) - told == set()


def test_no_secret_is_exported():
    for name, statement in account_data.EXPORTS.items():
        assert "hash" not in statement, name
        assert "*" not in statement, name

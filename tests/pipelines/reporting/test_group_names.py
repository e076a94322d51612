"""Names beside the ids of groups: those of the account only, and in documents in place of the ids."""

from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest

from models.accounts import accounts
from models.platform.ids import new_id
from pipelines.reporting.formats.charts import charts_of
from pipelines.reporting.formats.render import render
from pipelines.reporting.group_names import for_people, with_names
from pipelines.reporting.report_table import Column, Period, ReportTable

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def report(kind, ids):
    rows = [(each, number) for number, each in enumerate(ids)]
    columns = [Column(kind, "text"), Column("jobs", "integer")]
    return ReportTable("usage", "Usage", columns, rows, (None, 1), Period(NOW, NOW), "UTC", NOW)


@pytest.fixture
def add_member(database):
    """`add_member(name)` → a user with an account of their own, or in that of another user."""

    def add_member(name, account_id=None):
        with database.transaction() as connection:
            member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
            connection.execute("UPDATE users SET name = %s WHERE id = %s", (name, member.user_id))
            connection.execute("UPDATE accounts SET name = 'the lab' WHERE id = %s", (member.account_id,))
            if account_id:
                connection.execute(
                    "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')",
                    (account_id, member.user_id),
                )
        return member

    return add_member


def named(database, table, account_id):
    with database.connection() as connection:
        return with_names(connection, table, account_id)


def test_users_of_the_account_have_their_names_and_others_have_none(database, add_member):
    ada, stranger = add_member("Ada"), add_member("Stranger")
    table = report("user", [ada.user_id, stranger.user_id, None])

    of_account, of_all = (named(database, table, account_id) for account_id in (ada.account_id, None))

    assert [column.name for column in of_account.columns] == ["user", "user_name", "jobs"]
    assert [row[1] for row in of_account.rows] == ["Ada", None, None]
    assert [row[1] for row in of_all.rows] == ["Ada", "Stranger", None]
    assert of_account.totals == (None, None, 1)


def test_accounts_have_their_names(database, add_member):
    ada = add_member("Ada")

    assert named(database, report("account", [ada.account_id]), None).rows == [(ada.account_id, "the lab", 0)]


def test_a_user_without_a_name_has_their_address(database, add_member):
    ada = add_member("")

    assert named(database, report("user", [ada.user_id]), None).rows[0][1].endswith("@example.com")


def test_documents_have_one_column_in_which_users_of_one_name_differ(database, add_member):
    ada = add_member("Ada")
    other, bob = (add_member(name, ada.account_id) for name in ("Ada", "Bob"))
    ids = [ada.user_id, other.user_id, bob.user_id, "user_gone", None]
    table = named(database, report("user", ids), ada.account_id)

    shown = for_people(table)

    assert [column.name for column in shown.columns] == ["user", "jobs"]
    assert [row[0] for row in shown.rows] == [
        f"Ada ({ada.user_id})", f"Ada ({other.user_id})", "Bob", "user_gone", None
    ]  # fmt: skip
    assert charts_of(shown)[0].labels == [
        "(none)",
        "user_gone",
        "Bob",
        f"Ada ({other.user_id})",
        f"Ada ({ada.user_id})",
    ]
    assert b"user_name" not in render(table, "html").content
    assert orjson.loads(render(table, "json").content)["rows"][2] == {
        "user": bob.user_id, "user_name": "Bob", "jobs": 2,
    }  # fmt: skip


def test_a_report_without_ids_stays_as_it_is(database):
    table = report("model", ["llama"])

    assert named(database, table, None) == table == for_people(table)


def test_a_currency_of_all_rows_is_the_unit_of_the_amounts():
    columns = [Column("time", "time"), Column("currency", "text"), Column("amount", "decimal")]
    rows = [(NOW, "EUR", Decimal(1)), (NOW, None, Decimal(0))]
    table = ReportTable("usage", "Usage", columns, rows, (None, "EUR", Decimal(1)), Period(NOW, NOW), "UTC", NOW, "day")

    shown = for_people(table)

    assert shown.columns == [Column("day", "time"), Column("amount", "decimal", "EUR")]
    assert (shown.rows, shown.totals) == ([(NOW, Decimal(1)), (NOW, Decimal(0))], (None, Decimal(1)))


def test_amounts_of_several_currencies_keep_the_column():
    columns = [Column("currency", "text"), Column("amount", "decimal")]
    rows = [("EUR", Decimal(1)), ("USD", Decimal(2))]
    table = ReportTable("usage", "Usage", columns, rows, (None, None), Period(NOW, NOW), "UTC", NOW)

    assert for_people(table) == table

"""Postings move amounts between the ledger accounts of a customer."""

from decimal import Decimal

import pytest

from models.billing.postings import Leg, balances, leg, post, posted_legs, reversed_legs
from models.platform.database import fetch_one
from models.platform.ids import new_id

INVOICE = [Leg("receivable", "revenue", Decimal("19.00")), Leg("receivable", "tax", Decimal("3.61"))]


@pytest.fixture
def invoice():
    return new_id("inv")


def test_a_reference_is_posted_once(database, account, invoice):
    with database.connection() as connection:
        for _ in range(2):
            post(connection, account, "invoice", invoice, INVOICE, currency="EUR")

        assert posted_legs(connection, "invoice", invoice) == INVOICE
        assert balances(connection, account) == {
            ("receivable", "EUR"): Decimal("22.61"),
            ("revenue", "EUR"): Decimal("-19.00"),
            ("tax", "EUR"): Decimal("-3.61"),
        }


def test_reversed_legs_restore_the_balances(database, account, invoice):
    with database.connection() as connection:
        post(connection, account, "invoice", invoice, INVOICE, currency="EUR")
        post(connection, account, "void", invoice, reversed_legs(INVOICE), currency="EUR")

        assert set(balances(connection, account).values()) == {Decimal(0)}


def test_no_legs_post_nothing(database, account, invoice):
    with database.connection() as connection:
        post(connection, account, "invoice", invoice, [], currency="EUR")

        assert balances(connection, account) == {}


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("1.5", [Leg("receivable", "revenue", Decimal("1.5"))]),
        ("-1.5", [Leg("revenue", "receivable", Decimal("1.5"))]),
        ("0.00", []),
    ],
)
def test_a_leg_has_the_direction_of_its_sign(amount, expected):
    assert leg("receivable", "revenue", Decimal(amount)) == expected


def test_amounts_keep_all_their_digits(database, account):
    amount = Decimal("0.000000000000000001234")
    with database.connection() as connection:
        post(connection, account, "grant", new_id("grant"), [Leg("promotions", "credits", amount)], currency="USD")

        assert balances(connection, account)["credits", "USD"] == -amount


def test_balances_are_of_one_customer(database, account, invoice):
    with database.connection() as connection:
        post(connection, account, "invoice", invoice, INVOICE, currency="EUR")

        assert balances(connection, "acct_of_somebody_else") == {}
        total = fetch_one(
            connection, "SELECT count(*) AS count FROM postings WHERE reference = %(invoice)s", {"invoice": invoice}
        )
        assert total == {"count": 2}

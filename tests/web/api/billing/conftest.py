"""Fixtures of money in the web application: a customer who pays, and the workers of payments."""

from decimal import Decimal

import pytest

from models.billing import billing_details, payments, settlement
from models.billing.payments import PaymentOutcome
from pipelines.billing.gateways.registry import open_simulator
from tests.pipelines.billing.books import reset_seller
from tests.web.api_client import ApiUser


@pytest.fixture(autouse=True)
def seller(database):
    """The seller of a new installation."""
    reset_seller(database)


@pytest.fixture
def user(api, database):
    """A user with an account, whose ledger is deleted with it."""
    user = ApiUser(api, database)
    yield user
    delete(user)


@pytest.fixture
def other_user(api, database):
    """A user with another account."""
    user = ApiUser(api, database)
    yield user
    delete(user)


def delete(user):
    with user.database.connection() as connection:
        connection.execute("DELETE FROM postings WHERE account_id = %s", (user.caller.account_id,))
    user.delete_account()


@pytest.fixture
def simulator(settings, database):
    """The simulated gateway of the application."""
    return open_simulator(settings, database)


@pytest.fixture
def pay(database):
    """`pay(user, "12.50")` → a pending payment; with `paid=True` the gateway has made it."""

    def pay(user, amount="12.50", *, gateway="test", paid=False, invoice_id=None, currency="EUR"):
        account_id = user.caller.account_id
        with database.transaction() as connection:
            billing_details.ensure(connection, account_id, currency)
            payment, _ = payments.new_payment(
                connection, account_id, invoice_id=invoice_id, amount=Decimal(amount), currency=currency,
                gateway=gateway,
            )  # fmt: skip
            if paid:
                outcome = PaymentOutcome("succeeded", f"ch_{payment.id}", payment.created_at)
                settlement.settle(connection, payment, outcome)
        return payment

    return pay

"""Agents that a turn asks at once reserve what they can cost, together or not at all."""

from decimal import Decimal

import pytest

from models.billing import billing_details, spending
from models.billing.spending import MostTokens
from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import BudgetExhausted, SpendingLimitReached
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.agents import delegation
from pipelines.agents.turn_tools import Child

INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, 'EUR', 1000000, 0, 0, '2026-01-01')
"""


@pytest.fixture
def children(database, account):
    """`children(2)` → so many delegations, each of which may cost 5, of an account with a limit of 10."""
    model = new_id("model")
    with database.transaction() as connection:
        connection.execute(INSERT_PRICE, (new_id("price"), model))
        billing_details.ensure(connection, account, "EUR")
        spending.set_limit(connection, account, "", Decimal(10))
    return lambda number: [
        Child(NewJob("turn.run", account), most_tokens=MostTokens(model, 5, 0)) for _ in range(number)
    ]


def test_delegations_reserve_together(database, account, children, begin):
    job, asked, settings = begin(NewJob("turn.run", account)).job, children(2), Settings()

    with database.transaction() as connection:
        delegation.check_money(settings, job, connection, asked)
        delegation.reserve_money(settings, job, asked, connection)
        for child in asked:
            enqueue(connection, child.job)

    with database.connection() as connection:
        assert spending.monthly_spending(connection, account).reserved == 10


def test_delegations_that_are_not_paid_for_end_the_turn_at_its_budget(database, account, children, begin):
    job, asked, settings = begin(NewJob("turn.run", account)).job, children(3), Settings()

    with database.transaction() as connection:
        with pytest.raises(BudgetExhausted, match="spending limit"):
            delegation.check_money(settings, job, connection, asked)
        with pytest.raises(SpendingLimitReached):
            delegation.reserve_money(settings, job, asked, connection)

"""A stateful test of budgets: jobs of two trees draw, end and crash in any order.

After every step what a tree has used is the sum of what its ended jobs used and of what its running jobs have drawn,
and never more than its limits.
"""

from decimal import Decimal
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from models.jobs.budgets import BudgetLimits, draw, open_budget, settle
from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import BudgetExhausted

AMOUNTS = st.tuples(
    st.integers(0, 40), st.decimals(0, 4, places=7, allow_nan=False, allow_infinity=False), st.integers(0, 3)
)
LIMITS = st.tuples(
    st.none() | st.integers(0, 100),
    st.none() | st.decimals(0, 10, places=7, allow_nan=False, allow_infinity=False),
    st.none() | st.integers(0, 8),
)
NOTHING = (0, Decimal(0), 0)


class Crash(Exception):
    """A process crashes inside a transaction."""


class Budgets(RuleBasedStateMachine):
    """Two trees and a model of them."""

    database: ClassVar
    account: ClassVar

    @initialize(limits=st.tuples(LIMITS, LIMITS))
    def open_trees(self, limits):
        self.limits = {}
        self.used = {}  # by ended jobs
        self.drawn = {}  # by running jobs
        for each in limits:
            root = NewJob("test.work", self.account)
            with self.database.transaction() as connection:
                enqueue(connection, root)
                open_budget(connection, root.id, self.account, BudgetLimits(*each))
            self.limits[root.id], self.used[root.id], self.drawn[root.id] = each, NOTHING, []

    def tree(self, second):
        return list(self.limits)[second]

    @rule(second=st.booleans(), amounts=AMOUNTS, crashes=st.booleans())
    def draw(self, second, amounts, crashes):
        root_id = self.tree(second)
        total = add(self.total(root_id), amounts)
        fits = all(
            limit is None or not amount or sum_ <= limit
            for limit, amount, sum_ in zip(self.limits[root_id], amounts, total, strict=True)
        )
        try:
            with self.database.transaction() as connection:
                draw(connection, root_id, tokens=amounts[0], money=amounts[1], calls=amounts[2])
                if crashes:
                    raise Crash
        except BudgetExhausted:
            assert not fits
        except Crash:
            assert fits
        else:
            assert fits
            self.drawn[root_id].append(amounts)

    @precondition(lambda self: any(self.drawn.values()))
    @rule(data=st.data(), crashes=st.booleans())
    def end_job(self, data, crashes):
        root_id = data.draw(st.sampled_from([root_id for root_id, drawn in self.drawn.items() if drawn]))
        drawn = data.draw(st.sampled_from(self.drawn[root_id]))
        used = tuple(data.draw(st.integers(0, each) if isinstance(each, int) else money_up_to(each)) for each in drawn)
        try:
            with self.database.transaction() as connection:
                tokens, money, calls = (before - after for before, after in zip(drawn, used, strict=True))
                settle(connection, root_id, tokens=tokens, money=money, calls=calls)
                if crashes:
                    raise Crash
        except Crash:
            return
        self.drawn[root_id].remove(drawn)
        self.used[root_id] = add(self.used[root_id], used)

    def total(self, root_id):
        total = self.used[root_id]
        for amounts in self.drawn[root_id]:
            total = add(total, amounts)
        return total

    @invariant()
    def rows_equal_the_model_and_are_within_the_limits(self):
        for root_id, limits in self.limits.items():
            with self.database.connection() as connection:
                query = "SELECT tokens, money, calls FROM budgets WHERE root_id = %s"
                row = tuple(connection.execute(query, (root_id,)).fetchone().values())
            assert row == self.total(root_id)
            assert all(limit is None or used <= limit for used, limit in zip(row, limits, strict=True))


def add(first, second):
    return tuple(one + other for one, other in zip(first, second, strict=True))


def money_up_to(limit):
    return st.decimals(0, limit, places=7, allow_nan=False, allow_infinity=False)


@pytest.mark.timeout(600)
def test_draws_and_settlements_in_any_order_keep_the_limits(database, account, kinds):
    class BoundBudgets(Budgets):
        pass

    BoundBudgets.database, BoundBudgets.account = database, account
    run_state_machine_as_test(
        BoundBudgets,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

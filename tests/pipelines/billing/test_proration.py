"""Changes of plan within a period neither create nor destroy money."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.billing.currencies import from_minor, minor_unit, rounded
from models.billing.periods import bounds
from models.billing.plan_versions import AT_PRICE, PlanVersion
from pipelines.billing.proration import change_lines, rest_of_fee, used_part

CURRENCIES = st.sampled_from(["EUR", "JPY", "KWD"])
ANCHORS = st.integers(1_701_388_800, 1_838_073_600).map(lambda time: datetime.fromtimestamp(time, UTC))
PERIODS = st.sampled_from(["month", "year"])


def plan(fee, currency, name="plan"):
    return PlanVersion(
        plan_id=name, version=1, created_at=datetime(2026, 1, 1, tzinfo=UTC), name=name, limits={},
        fee=from_minor(fee, currency), currency=currency, period="month", trial_days=0, included_amount=Decimal(0),
        overage=AT_PRICE, spending_limit=None, models=None, public=True,
    )  # fmt: skip


def total(lines, currency):
    """Add the lines up, as an invoice rounds them."""
    return sum((rounded(line.amount, currency) for line in lines), Decimal(0))


def test_half_a_period_costs_half_the_difference():
    start, end = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)

    lines = change_lines(plan(1900, "EUR"), plan(4900, "EUR"), start, end, datetime(2026, 4, 16, tzinfo=UTC))

    assert [line.amount for line in lines] == [Decimal("-9.5"), Decimal("24.5")]


def test_part_of_a_leap_month_counts_its_29_days():
    start, end = bounds(datetime(2024, 1, 31, tzinfo=UTC), "month", 0)

    assert rest_of_fee(Decimal(29), start, end, datetime(2024, 2, 28, tzinfo=UTC)) == 1


@given(
    CURRENCIES,
    ANCHORS,
    PERIODS,
    st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 32_000_000)), min_size=1, max_size=8),
    st.integers(0, 10**8),
)
def test_any_changes_cost_the_time_of_each_plan(currency, anchor, period, changes, first_fee):
    # Given a period that was paid for, and changes of plan in it
    start, end = bounds(anchor, period, 0)
    current = plan(first_fee, currency)
    paid, exact, since = current.fee, Fraction(0), start
    changes = sorted((min(start + timedelta(seconds=at), end), fee) for fee, at in changes)

    # When each is invoiced
    for at, fee in changes:
        new = plan(fee, currency)
        paid += total(change_lines(current, new, start, end, at), currency)
        exact += Fraction(current.fee) * Fraction(int((at - since).total_seconds()), int((end - start).total_seconds()))
        current, since = new, at
    exact += Fraction(current.fee) * Fraction(int((end - since).total_seconds()), int((end - start).total_seconds()))

    # Then the sum differs from the exact price by the rounding of the lines: at most half a unit for each
    assert abs(Fraction(paid) - exact) <= Fraction(minor_unit(currency)) * len(changes)


@given(
    CURRENCIES, ANCHORS, PERIODS, st.lists(st.integers(0, 10**9), min_size=2, max_size=10), st.integers(0, 32_000_000)
)
def test_changes_there_and_back_at_one_time_cancel_out_exactly(currency, anchor, period, fees, seconds):
    start, end = bounds(anchor, period, 0)
    at = min(start + timedelta(seconds=seconds), end)
    plans = [plan(fee, currency) for fee in [*fees, fees[0]]]

    lines = [line for old, new in itertools.pairwise(plans) for line in change_lines(old, new, start, end, at)]

    assert total(lines, currency) == 0


@given(CURRENCIES, ANCHORS, PERIODS, st.integers(1, 10**9), st.integers(0, 32_000_000))
def test_share_is_rounded_as_the_exact_fraction_is(currency, anchor, period, fee, seconds):
    # Halves are the risk: a decimal quotient that was rounded to a half would be rounded twice
    start, end = bounds(anchor, period, 0)
    at = min(start + timedelta(seconds=seconds), end)
    length = int((end - start).total_seconds())
    units = Fraction(fee * (length - int((at - start).total_seconds())), length)

    share = rounded(rest_of_fee(from_minor(fee, currency), start, end, at), currency)

    assert share == from_minor(int(units + Fraction(1, 2)), currency)


def test_change_at_the_beginning_or_the_end_is_whole_or_nothing():
    start, end = bounds(datetime(2026, 4, 1, tzinfo=UTC), "month", 0)
    old, new = plan(1000, "EUR"), plan(3000, "EUR")

    assert total(change_lines(old, new, start, end, start), "EUR") == 20
    assert change_lines(old, new, start, end, end) == []


@pytest.mark.parametrize("cuts", [[0.1], [0.25, 0.5], [0.001, 0.7, 0.9999]])
def test_parts_of_a_period_add_up_to_the_whole(cuts):
    start, end = bounds(datetime(2026, 1, 31, tzinfo=UTC), "month", 0)
    times = [start, *(start + (end - start) * cut for cut in cuts), end]

    parts = [used_part(Decimal("19.99"), start, end, *pair) for pair in itertools.pairwise(times)]

    assert rounded(sum(parts), "EUR") == Decimal("19.99")

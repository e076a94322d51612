"""Amounts as Stripe counts them."""

from decimal import Decimal

import pytest

from models.billing.currencies import MINOR_DIGITS, TWO_DIGITS, minor_digits
from pipelines.billing.gateways.stripe_amounts import RULES, NotChargeable, from_stripe, rule_of, to_stripe

#: The lists of Stripe's documentation.
ZERO_DECIMAL = ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"]
THREE_DECIMAL = ["BHD", "JOD", "KWD", "OMR", "TND"]


def assert_refused(amount, currency):
    with pytest.raises(NotChargeable):
        to_stripe(Decimal(amount), currency)


@pytest.mark.parametrize("currency", ["USD", "EUR", "HUF", "TWD"])
def test_two_decimal_currencies_are_counted_in_hundredths(currency):
    assert to_stripe(Decimal("10.45"), currency) == 1045
    assert from_stripe(1045, currency.lower()) == Decimal("10.45")
    assert_refused("0.001", currency)


@pytest.mark.parametrize("currency", ZERO_DECIMAL)
def test_zero_decimal_currencies_are_counted_as_they_are(currency):
    assert to_stripe(Decimal(500), currency) == 500
    assert from_stripe(500, currency.lower()) == 500
    assert_refused("0.5", currency)


@pytest.mark.parametrize("currency", ["ISK", "UGX"])
def test_two_zeros_are_added_to_currencies_that_have_lost_their_digits(currency):
    assert to_stripe(Decimal(5), currency) == 500
    assert from_stripe(500, currency.lower()) == 5
    assert_refused("5.10", currency)


@pytest.mark.parametrize("currency", THREE_DECIMAL)
def test_last_digit_of_three_decimal_currencies_must_be_zero(currency):
    assert to_stripe(Decimal("5.120"), currency) == 5120
    assert from_stripe(5120, currency.lower()) == Decimal("5.120")
    assert_refused("5.124", currency)


def test_the_table_has_exactly_the_currencies_that_do_not_have_two_digits():
    without = {code for code in {*MINOR_DIGITS, *TWO_DIGITS} if minor_digits(code) != 2}

    assert without - set(RULES) == {"IQD", "LYD"}  # which Stripe does not charge at all
    assert set(RULES) - without == {"MGA"}


@pytest.mark.parametrize("currency", sorted({*MINOR_DIGITS, *TWO_DIGITS}))
def test_amounts_of_all_currencies_survive_the_way_there_and_back(currency):
    rule = rule_of(currency)
    for units in (rule.multiple, 123 * rule.multiple, 99_999_900):
        assert to_stripe(from_stripe(units, currency.lower()), currency) == units

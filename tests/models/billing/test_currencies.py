"""Amounts of money and their currencies."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.billing.currencies import (
    MINOR_DIGITS,
    TWO_DIGITS,
    check_amount,
    check_currency,
    format_amount,
    from_minor,
    minor_unit,
    rounded,
    to_minor,
)
from models.platform.errors import InvalidRequest

currencies = st.sampled_from(["EUR", "USD", "JPY", "KRW", "KWD", "TND"])
amounts = st.decimals(-(10**9), 10**9, places=12)


@given(amounts, currencies)
def test_rounding_changes_an_amount_by_at_most_half_a_minor_unit(amount, currency):
    assert abs(rounded(amount, currency) - amount) <= minor_unit(currency) / 2


@given(amounts, currencies)
def test_rounding_does_not_depend_on_the_sign(amount, currency):
    assert rounded(-amount, currency) == -rounded(amount, currency)


@given(st.integers(-(10**14), 10**14), currencies)
def test_minor_units_are_converted_without_loss(minor, currency):
    assert to_minor(from_minor(minor, currency), currency) == minor


@pytest.mark.parametrize(("amount", "currency"), [("0.001", "EUR"), ("0.1", "JPY"), ("0.0001", "KWD")])
def test_a_part_of_a_minor_unit_cannot_be_paid(amount, currency):
    with pytest.raises(ValueError, match="minor units"):
        to_minor(Decimal(amount), currency)
    with pytest.raises(InvalidRequest, match="digits"):
        check_amount(Decimal(amount), currency)


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", "Infinity", "-Infinity", "1000000001"])
def test_an_amount_outside_the_limits_is_rejected_with_its_name(amount):
    with pytest.raises(InvalidRequest) as error:
        check_amount(Decimal(amount), "EUR", "total")

    assert error.value.param == "total"


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("19", "EUR", "19.00"),
        ("1E+3", "JPY", "1000"),
        ("1E-7", None, "0.0000001"),
        ("0.0050", "EUR", "0.005"),
        ("2.50", None, "2.5"),
        ("1.5", "KWD", "1.500"),
        ("0", "USD", "0.00"),
    ],
)
def test_amounts_are_written_with_the_digits_of_their_currency(amount, currency, text):
    assert format_amount(Decimal(amount), currency) == text


def test_codes_are_read_without_case():
    assert check_currency("eur") == "EUR"


@pytest.mark.parametrize("code", ["", "EU", "EURO", "XXX", "ẞßs", "€"])
def test_an_unknown_code_is_rejected(code):
    with pytest.raises(InvalidRequest):
        check_currency(code)


def test_no_currency_is_listed_twice():
    assert not TWO_DIGITS & MINOR_DIGITS.keys()
    assert all(len(code) == 3 for code in TWO_DIGITS | MINOR_DIGITS.keys())

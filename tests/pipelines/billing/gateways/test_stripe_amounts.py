"""Amounts as Stripe counts them."""

from decimal import Decimal

import pytest

from pipelines.billing.gateways.stripe_amounts import NotChargeable, from_stripe, to_stripe


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [("12.50", "EUR", 1250), ("1900", "JPY", 1900), ("1.230", "KWD", 1230), ("5", "ISK", 500), ("7", "UGX", 700),
     ("3", "MGA", 3), ("0.01", "USD", 1)],
)  # fmt: skip
def test_amounts_are_counted_as_stripe_does(amount, currency, units):
    assert to_stripe(Decimal(amount), currency) == units
    assert from_stripe(units, currency.lower()) == Decimal(amount)


@pytest.mark.parametrize(("amount", "currency"), [("1.234", "KWD"), ("3.50", "MGA"), ("0.001", "EUR"), ("0.5", "JPY")])
def test_amounts_that_stripe_does_not_move_are_refused(amount, currency):
    with pytest.raises(NotChargeable):
        to_stripe(Decimal(amount), currency)

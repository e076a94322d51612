"""Amounts as Stripe counts them (docs.stripe.com/currencies): mostly, but not always, in minor units of ISO 4217.

- MGA and UGX differ from ISO 4217: MGA has no digits, and UGX has two, of which both are zero.
- ISK has two digits, of which both are zero.
- The last of three digits must be zero.
"""

from decimal import Decimal

from models.billing.currencies import minor_digits, rounded

#: Digits where Stripe has others than ISO 4217.
DIGITS = {"MGA": 0, "UGX": 2, "ISK": 2}

#: What amounts in Stripe's smallest unit must be a multiple of.
MULTIPLES = {"UGX": 100, "ISK": 100}


class NotChargeable(Exception):
    """Stripe does not move this amount: it has a digit that must be zero."""


def to_stripe(amount: Decimal, currency: str) -> int:
    """Return an amount in the unit that Stripe's API takes. Raises NotChargeable."""
    scaled = amount.scaleb(_digits(currency))
    multiple = MULTIPLES.get(currency, 10 if minor_digits(currency) == 3 else 1)
    if scaled != scaled.to_integral_value() or int(scaled) % multiple:
        raise NotChargeable(f"Stripe does not charge {amount} {currency}: its last digits must be zero.")
    return int(scaled)


def from_stripe(amount: int, currency: str) -> Decimal:
    """Return an amount of Stripe's API in the main unit. `currency` may be in small letters."""
    code = currency.upper()
    return rounded(Decimal(amount).scaleb(-_digits(code)), code)


def _digits(currency: str) -> int:
    return DIGITS.get(currency, minor_digits(currency))

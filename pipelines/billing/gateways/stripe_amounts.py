"""Amounts as Stripe counts them (docs.stripe.com/currencies): mostly, but not always, in minor units of ISO 4217."""

from dataclasses import dataclass
from decimal import Decimal

from models.billing.currencies import minor_digits, rounded


@dataclass(frozen=True, slots=True)
class Rule:
    """How Stripe counts a currency: the digits of its unit, and what an amount must be a multiple of."""

    digits: int
    multiple: int


#: Without digits. MGA differs from ISO 4217, where it has two.
ZERO_DECIMAL = Rule(0, 1)

#: They have become currencies without digits; for compatibility Stripe keeps two, which must be zero.
TWO_ZEROS = Rule(2, 100)

#: The last of three digits must be zero: the networks of cards take two.
THREE_DECIMAL = Rule(3, 10)

TWO_DECIMAL = Rule(2, 1)

#: The currencies that do not have two decimal digits. HUF and TWD are special in payouts only.
RULES = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA"), ZERO_DECIMAL),
    **dict.fromkeys(("PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"), ZERO_DECIMAL),
    **dict.fromkeys(("ISK", "UGX"), TWO_ZEROS),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), THREE_DECIMAL),
}


class NotChargeable(Exception):
    """Stripe does not move this amount: it has a digit that must be zero."""


def to_stripe(amount: Decimal, currency: str) -> int:
    """Return an amount in the unit that Stripe's API takes. Raises NotChargeable."""
    rule = rule_of(currency)
    scaled = amount.scaleb(rule.digits)
    if scaled != scaled.to_integral_value() or int(scaled) % rule.multiple:
        raise NotChargeable(f"Stripe does not charge {amount} {currency}: its last digits must be zero.")
    return int(scaled)


def from_stripe(amount: int, currency: str) -> Decimal:
    """Return an amount of Stripe's API in the main unit. `currency` may be in small letters."""
    code = currency.upper()
    return rounded(Decimal(amount).scaleb(-rule_of(code).digits), code)


def rule_of(currency: str) -> Rule:
    """Return the rule of a currency. One with three digits that Stripe does not list counts like those that it does."""
    return RULES.get(currency, THREE_DECIMAL if minor_digits(currency) == 3 else TWO_DECIMAL)

"""The price of usage beyond what a plan includes, by its tiers.

`{"mode": "graduated" | "volume" | "none", "tiers": [{"up_to": amount or None, "factor": of the list price}]}`.
`graduated`: each tier prices the part of the amount that lies in it. `volume`: the tier in which the amount lies prices
all of it. `none`: the plan has no overage, so its account pays in advance (`models.billing.prepaid`).
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from models.billing.currencies import ZERO

#: The mode of a plan whose account may use what is included and its credits, and no more.
NO_OVERAGE: Final = "none"

Tiers = Sequence[tuple[Decimal | None, Decimal]]


def overage_price(amount: Decimal, overage: Mapping[str, Any] | None) -> Decimal:
    """Return the price of usage that costs `amount` by the price list."""
    if not overage or amount <= 0:
        return max(amount, ZERO)
    tiers = _tiers(overage)
    if overage["mode"] == "volume":
        return amount * next((factor for bound, factor in tiers if bound is None or amount <= bound), tiers[-1][1])
    return _graduated(amount, tiers)


def highest_price(amount: Decimal, overage: Mapping[str, Any] | None) -> Decimal:
    """Return the most that usage of at most `amount` costs: with `volume` less usage may cost more."""
    bounds = [bound for bound, _ in _tiers(overage) if bound is not None and bound < amount] if overage else []
    return max(overage_price(each, overage) for each in (amount, *bounds))


def highest_factor(overage: Mapping[str, Any] | None) -> Decimal:
    """Return the largest factor of the list price."""
    return max(factor for _, factor in _tiers(overage)) if overage else Decimal(1)


def _tiers(overage: Mapping[str, Any]) -> Tiers:
    return [(_bound(tier["up_to"]), Decimal(tier["factor"])) for tier in overage["tiers"]]


def _graduated(amount: Decimal, tiers: Tiers) -> Decimal:
    """Add up the parts. What is beyond the last bound has the last factor."""
    price, below = ZERO, ZERO
    for bound, factor in tiers:
        upper = amount if bound is None else min(bound, amount)
        price, below = price + max(upper - below, ZERO) * factor, max(upper, below)
    return price + (amount - below) * tiers[-1][1]


def _bound(up_to: Any) -> Decimal | None:
    return None if up_to is None else Decimal(str(up_to))

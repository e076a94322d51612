"""The lines of a period's usage: by model, class and agent, what the plan includes, and the price of the rest."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from models.billing.currencies import ZERO, rounded
from models.billing.invoice_lines import NewLine
from models.billing.usage_lines import UsageGroup


def usage_lines(groups: Iterable[UsageGroup]) -> list[NewLine]:
    """Return a line for each group of usage."""
    return [NewLine("usage", _describe(group), group.amount, group.jobs, _details(group)) for group in groups]


def _describe(group: UsageGroup) -> str:
    if group.model is None:
        return "Other usage"
    agent = f", agent {group.agent}" if group.agent else ""
    service_class = f", {group.service_class}" if group.service_class != "standard" else ""
    return f"Usage of {group.model}{service_class}{agent}"


def _details(group: UsageGroup) -> Mapping[str, Any]:
    tokens = {name: getattr(group, name) for name in ("jobs", "input_tokens", "cached_tokens", "output_tokens")}
    if group.model is None:
        return tokens
    return {"model": group.model, "class": group.service_class, "agent": group.agent, **tokens}


def plan_lines(usage: Sequence[NewLine], terms: Mapping[str, Any] | None, currency: str) -> list[NewLine]:
    """Return the line of the included amount and that of the overage price, where they change something.

    terms  `{"amount": what the plan includes, "overage": {"mode", "tiers"}}`; None without a plan
    """
    if terms is None:
        return []
    total = sum((rounded(line.amount, currency) for line in usage), ZERO)
    included = min(Decimal(terms["amount"]), total)
    difference = overage_price(total - included, terms.get("overage")) - (total - included)
    lines = [
        NewLine("included", "Usage included in the plan", -included),
        NewLine("overage", "Price of usage beyond the included amount", difference),
    ]
    return [line for line in lines if rounded(line.amount, currency)]


def overage_price(amount: Decimal, overage: Mapping[str, Any] | None) -> Decimal:
    """Return the price of usage that costs `amount` by the price list.

    A tier is `{"up_to": amount or None, "factor": of the list price}`. `graduated`: each tier prices the part of the
    amount that lies in it. `volume`: the tier in which the amount lies prices all of it.
    """
    if not overage or amount <= 0:
        return max(amount, ZERO)
    tiers = [(_bound(tier["up_to"]), Decimal(tier["factor"])) for tier in overage["tiers"]]
    if overage["mode"] == "volume":
        return amount * next((factor for bound, factor in tiers if bound is None or amount <= bound), tiers[-1][1])
    return _graduated(amount, tiers)


def _graduated(amount: Decimal, tiers: Sequence[tuple[Decimal | None, Decimal]]) -> Decimal:
    """Add up the parts. What is beyond the last bound has the last factor."""
    price, below = ZERO, ZERO
    for bound, factor in tiers:
        upper = amount if bound is None else min(bound, amount)
        price, below = price + max(upper - below, ZERO) * factor, max(upper, below)
    return price + (amount - below) * tiers[-1][1]


def _bound(up_to: Any) -> Decimal | None:
    return None if up_to is None else Decimal(str(up_to))

"""The lines of a period's usage: by model, class and agent, what the plan includes, and the price of the rest."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from models.billing.currencies import ZERO, rounded
from models.billing.invoice_lines import NewLine
from models.billing.overage import overage_price
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

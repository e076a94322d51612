"""The lines of a change of plan within a period: a credit for the rest of the old one, a charge for the new one.

Both are the fee's share of the seconds that are left, rounded by the same rule. So the credit is what the same rest was
charged with, and between two changes a plan costs `rounded(rest at the first) - rounded(rest at the second)`. The sums
telescope: changes at one time cancel out exactly, and any number of changes differs from the exact price by less than
a minor unit for each time at which the plan was changed.
"""

from datetime import datetime
from decimal import Decimal, localcontext

from models.billing.currencies import rounded
from models.billing.invoice_lines import NewLine
from models.billing.plan_versions import PlanVersion

#: Digits of the exact share. A share has at most 9 digits before the point, and one that is not half a minor unit
#: differs from it by more than 1e-12, since a year has 3e7 seconds.
PRECISION = 40


def rest_of_fee(fee: Decimal, start: datetime, end: datetime, at: datetime) -> Decimal:
    """Return the exact part of a period's fee for what is left of it after `at`, by whole seconds."""
    total = int((end - start).total_seconds())
    used = min(max(int((at - start).total_seconds()), 0), total)
    with localcontext(prec=PRECISION):
        return fee * (total - used) / total


def used_part(amount: Decimal, start: datetime, end: datetime, since: datetime, until: datetime) -> Decimal:
    """Return the part of a period's amount for the time from `since` until `until`."""
    return rest_of_fee(amount, start, end, since) - rest_of_fee(amount, start, end, until)


def change_lines(old: PlanVersion, new: PlanVersion, start: datetime, end: datetime, at: datetime) -> list[NewLine]:
    """Return the lines of a change within the period from `start` to `end`. Nothing is a line without an amount."""
    return [*credit_lines(old, start, end, at), *_charge_lines(new, start, end, at)]


def credit_lines(old: PlanVersion, start: datetime, end: datetime, at: datetime) -> list[NewLine]:
    """Return the credit for what is left of a plan that was paid until `end`."""
    rest = rest_of_fee(old.fee, start, end, at)
    return _lines(f"Unused time of {old.name}", -rest, old, at, end)


def _charge_lines(new: PlanVersion, start: datetime, end: datetime, at: datetime) -> list[NewLine]:
    return _lines(f"Remaining time of {new.name}", rest_of_fee(new.fee, start, end, at), new, at, end)


def _lines(description: str, amount: Decimal, version: PlanVersion, at: datetime, end: datetime) -> list[NewLine]:
    if rounded(amount, version.currency) == 0:
        return []
    details = {
        "plan": version.plan_id, "version": version.version, "from": int(at.timestamp()), "to": int(end.timestamp())
    }  # fmt: skip
    return [NewLine("proration", description, amount, details=details)]

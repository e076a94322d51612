"""Which quotas are used by 80 or 100 percent in their period: the tokens of the month, and what the plan has.

A page selects accounts that may have reached one, without exact sums of what is included in a plan. `mark` decides
under the account's lock, and stores what there was an event of.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from decimal import Decimal
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.accounts import admin
from models.accounts.plans import EFFECTIVE_LIMITS
from models.billing import billing_details, prepaid, spending, subscriptions
from models.jobs.quota import monthly_usage
from models.platform.database import Connection, fetch_all, fetch_one

QuotaName = Literal["tokens_per_month", "included_usage", "spending"]


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How much of a quota is used in the period that begins on a day.

    allowed  0 or None: there is none
    """

    quota: QuotaName
    period: date
    used: Decimal
    allowed: Decimal | None

    @property
    def percent(self) -> int:
        """The highest percentage of those notified of that is reached; 0: none."""
        if not self.allowed or self.used * 100 < self.allowed * 80:
            return 0
        return 100 if self.used >= self.allowed else 80


def is_new(use: QuotaUse, notified: Mapping[str, Any]) -> bool:
    """Return whether there was no event of what is reached. `notified` is `accounts.notified_quotas`."""
    last = notified.get(use.quota) or {}
    return use.percent > (last["percent"] if last.get("period") == use.period.isoformat() else 0)


# Accounts in pages by their id. Usage of the months since the period began is at least that of the period.
PAGE = f"""
WITH page AS MATERIALIZED (
    SELECT accounts.id, notified_quotas, ({EFFECTIVE_LIMITS} ->> 'tokens_per_month')::numeric AS tokens_allowed
    FROM accounts JOIN plans ON plans.id = accounts.plan_id
    WHERE accounts.id > %(after)s AND erased_at IS NULL ORDER BY accounts.id LIMIT %(limit)s
)
SELECT page.id, page.notified_quotas, page.tokens_allowed, month.first AS month, tokens.used AS tokens_used,
       (plan.period_start AT TIME ZONE 'UTC')::date AS period, plan.included, plan.spending_limit,
       since.used AS used_since, since.spent
FROM page
CROSS JOIN (SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date AS first) AS month
LEFT JOIN LATERAL (
    SELECT coalesce(sum(quota_usage.tokens), 0) AS used FROM quota_usage
    WHERE quota_usage.account_id = page.id AND quota_usage.month = month.first) AS tokens
    ON page.tokens_allowed IS NOT NULL
LEFT JOIN LATERAL (
    SELECT subscriptions.period_start, plan_versions.spending_limit, included_before + included_amount AS included
    FROM subscriptions JOIN plan_versions
      ON plan_versions.plan_id = subscriptions.plan_id AND version = plan_version
    WHERE subscriptions.account_id = page.id AND state IN ('trialing', 'active', 'past_due')) AS plan ON true
LEFT JOIN LATERAL (
    SELECT coalesce(sum(amount), 0) AS used,
           coalesce(sum(amount) FILTER (WHERE spending.month = month.first), 0) AS spent
    FROM spending
    WHERE spending.account_id = page.id AND spending.scope = ''
      AND spending.month >= least(date_trunc('month', plan.period_start AT TIME ZONE 'UTC')::date, month.first)
    ) AS since
    ON plan.included > 0 OR plan.spending_limit IS NOT NULL
ORDER BY page.id
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An account, and whether it may have reached a percentage that there was no event of."""

    account_id: str
    may_have_reached: bool


def page(connection: Connection, after: str, limit: int) -> Sequence[Candidate]:
    """Return at most `limit` accounts beyond one, in the order of their ids."""
    rows = fetch_all(connection, PAGE, {"after": after, "limit": limit})
    return [
        Candidate(row["id"], any(is_new(use, row["notified_quotas"]) for use in _possible_uses(row))) for row in rows
    ]


def _possible_uses(row: Mapping[str, Any]) -> Iterator[QuotaUse]:
    """Yield the most that may be used of the least that may be allowed."""
    if row["tokens_allowed"] is not None:
        yield QuotaUse("tokens_per_month", row["month"], row["tokens_used"], row["tokens_allowed"])
    if row["spending_limit"] is not None:
        yield QuotaUse("spending", row["month"], row["spent"], row["spending_limit"])
    if row["used_since"]:
        yield QuotaUse("included_usage", row["period"], row["used_since"], row["included"])


LOCK = """
SELECT notified_quotas FROM accounts WHERE id = %(account_id)s AND erased_at IS NULL FOR NO KEY UPDATE
"""
STORE = "UPDATE accounts SET notified_quotas = %(notified)s WHERE id = %(account_id)s"


def mark(connection: Connection, account_id: str) -> Sequence[QuotaUse]:
    """Return what the account has reached since it was marked last, and store it, in the transaction of the events."""
    row = fetch_one(connection, LOCK, {"account_id": account_id})
    if row is None:
        return []
    notified = row["notified_quotas"]
    reached = [use for use in _uses(connection, account_id) if is_new(use, notified)]
    if reached:
        marks = {use.quota: {"period": use.period.isoformat(), "percent": use.percent} for use in reached}
        connection.execute(STORE, {"account_id": account_id, "notified": Jsonb({**notified, **marks})})
    return reached


def _uses(connection: Connection, account_id: str) -> Iterator[QuotaUse]:
    month, account = monthly_usage(connection, account_id), admin.read_account(connection, account_id)
    limit = account.limits.tokens_per_month if account else None
    yield QuotaUse("tokens_per_month", month.month, Decimal(month.used), None if limit is None else Decimal(limit))
    subscription = subscriptions.current(connection, account_id)
    if subscription is None or subscription.state not in subscriptions.ENTITLED:
        return
    spent = spending.monthly_spending(connection, account_id).spent
    limit_of_plan = subscriptions.version_of(connection, subscription).spending_limit
    yield QuotaUse("spending", month.month, spent, limit_of_plan)
    if billing_details.read(connection, account_id) is not None:
        plan = prepaid.read(connection, account_id)
        yield QuotaUse("included_usage", subscription.period_start.astimezone(UTC).date(), plan.used, plan.included)

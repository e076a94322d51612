"""The usage of an invoice: usage records assigned to a draft, and their sums by model, class and agent."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from models.billing import invoices
from models.platform.database import Connection, fetch_all, fetch_one

#: Usage records that one transaction assigns to a draft.
BATCH = 5_000

#: Lines of usage on an invoice. The groups that cost least are one line together beyond that.
MAX_GROUPS = 200

# Materialised: a subquery that locks rows may be run again for each row, and then return others than before.
ASSIGN = """
WITH batch AS MATERIALIZED (
    SELECT job_id AS unbilled_id FROM usage_records
    WHERE account_id = %(account_id)s AND created_at < %(before)s AND billed_amount IS NOT NULL AND billed_on IS NULL
      AND billed_currency = %(currency)s
    ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
UPDATE usage_records SET billed_on = %(invoice_id)s FROM batch WHERE job_id = unbilled_id
"""


def assign(connection: Connection, invoice_id: str, account_id: str, batch: int = BATCH) -> int:
    """Assign at most `batch` records of before the period's end that are on no invoice to a draft. Returns how many.

    The lock of the draft keeps an attempt that was overtaken from assigning records to a finalised invoice: it assigns
    none then.
    """
    invoice = invoices.lock_if_any(connection, invoice_id, account_id)
    if invoice is None or invoice.state != "draft":
        return 0
    parameters = {
        "invoice_id": invoice_id,
        "account_id": account_id,
        "before": invoice.period_end,
        "currency": invoice.currency,
        "batch": batch,
    }
    return connection.execute(ASSIGN, parameters).rowcount


RELEASE = "UPDATE usage_records SET billed_on = NULL WHERE billed_on = %(id)s AND account_id = %(account_id)s"


def release(connection: Connection, invoice_id: str, account_id: str) -> None:
    """Leave the usage of an invoice to the next one. The caller holds its lock."""
    connection.execute(RELEASE, {"id": invoice_id, "account_id": account_id})


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """The usage of one model, class and agent; of all that are left, with the model None."""

    model: str | None
    service_class: str
    agent: str
    jobs: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    amount: Decimal


# A record's class is that of its price.
GROUPS = """
WITH groups AS (
    SELECT usage.model, coalesce(prices.service_class, 'standard') AS service_class,
           coalesce(usage.billed_agent, '') AS agent, count(*) AS jobs, sum(input_tokens) AS input_tokens,
           sum(cached_tokens) AS cached_tokens, sum(output_tokens) AS output_tokens, sum(billed_amount) AS amount
    FROM usage_records AS usage LEFT JOIN prices ON prices.id = usage.price_id
    WHERE billed_on = %(id)s AND account_id = %(account_id)s
    GROUP BY 1, 2, 3 HAVING sum(billed_amount) <> 0
), ranked AS (
    SELECT model, service_class, agent, jobs, input_tokens, cached_tokens, output_tokens, amount,
           row_number() OVER (ORDER BY amount DESC, model, service_class, agent) > %(limit)s AS beyond
    FROM groups
)
SELECT CASE WHEN beyond THEN NULL ELSE model END AS model,
       CASE WHEN beyond THEN '' ELSE service_class END AS service_class,
       CASE WHEN beyond THEN '' ELSE agent END AS agent, sum(jobs)::bigint AS jobs,
       sum(input_tokens)::bigint AS input_tokens, sum(cached_tokens)::bigint AS cached_tokens,
       sum(output_tokens)::bigint AS output_tokens, sum(amount) AS amount
FROM ranked GROUP BY 1, 2, 3 ORDER BY model NULLS LAST, service_class, agent
"""


def groups(connection: Connection, invoice_id: str, account_id: str, limit: int = MAX_GROUPS) -> list[UsageGroup]:
    """Return the sums of an invoice's usage, at most `limit` and one of the rest."""
    parameters = {"id": invoice_id, "account_id": account_id, "limit": limit}
    return [UsageGroup(**row) for row in fetch_all(connection, GROUPS, parameters)]


@dataclass(frozen=True, slots=True)
class UsageOfLine:
    """A job that a line of an invoice sums up."""

    job_id: str
    model: str
    agent: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    amount: Decimal
    created_at: datetime


# Pages follow the index of an invoice's usage by job.
LINE_USAGE = """
SELECT usage.job_id, usage.model, coalesce(usage.billed_agent, '') AS agent, usage.input_tokens, usage.cached_tokens,
       usage.output_tokens, usage.billed_amount AS amount, usage.created_at
FROM usage_records AS usage LEFT JOIN prices ON prices.id = usage.price_id
WHERE billed_on = %(id)s AND account_id = %(account_id)s AND billed_amount <> 0
  AND (%(after)s::text IS NULL OR usage.job_id > %(after)s)
  AND {condition}
ORDER BY usage.job_id LIMIT %(limit)s
"""

GROUP = "(usage.model, coalesce(prices.service_class, 'standard'), coalesce(usage.billed_agent, ''))"

#: The usage of a line of one group, and that which has no line of its own.
OF_GROUP = LINE_USAGE.format(condition=f"{GROUP} = (%(model)s, %(class)s, %(agent)s)")
OF_REST = LINE_USAGE.format(
    condition=f"""{GROUP} NOT IN (
      SELECT details ->> 'model', details ->> 'class', details ->> 'agent' FROM invoice_lines
      WHERE invoice_id = %(id)s AND kind = 'usage' AND details ->> 'model' IS NOT NULL)"""
)
OF_INVOICE = LINE_USAGE.format(condition="true")

LINE = """
SELECT details FROM invoice_lines JOIN invoices ON invoices.id = invoice_id
WHERE invoice_id = %(id)s AND account_id = %(account_id)s AND position = %(position)s AND kind = 'usage'
"""


def usage_of_line(
    connection: Connection, invoice_id: str, account_id: str, position: int | None, *, after: str | None, limit: int
) -> list[UsageOfLine]:
    """Return at most `limit` jobs of a line of usage, the oldest first, later than the job `after`; None: of all."""
    parameters = {"id": invoice_id, "account_id": account_id, "after": after, "limit": limit}
    if position is None:
        return [UsageOfLine(**row) for row in fetch_all(connection, OF_INVOICE, parameters)]
    line = fetch_one(connection, LINE, {**parameters, "position": position})
    if line is None:
        return []
    statement = OF_GROUP if "model" in line["details"] else OF_REST
    names = {name: line["details"].get(name) for name in ("model", "class", "agent")}
    return [UsageOfLine(**row) for row in fetch_all(connection, statement, {**parameters, **names})]


INCLUDED = """
SELECT versions.included_amount AS amount, versions.overage
FROM subscriptions JOIN plan_versions AS versions
  ON versions.plan_id = subscriptions.plan_id AND versions.version = subscriptions.plan_version
WHERE subscriptions.id = %(id)s AND subscriptions.account_id = %(account_id)s
"""


def included_usage(connection: Connection, subscription_id: str | None, account_id: str) -> Mapping[str, Any] | None:
    """Return the included amount and the overage price of a subscription's version; None without a subscription."""
    row = fetch_one(connection, INCLUDED, {"id": subscription_id, "account_id": account_id})
    return {"amount": str(row["amount"]), "overage": row["overage"]} if row else None


# Accounts without a subscription, whose period is the calendar month. A page of all accounts is checked at a time:
# filtered first, each page would read the subscriptions of all accounts.
TO_INVOICE = """
WITH page AS MATERIALIZED (
    SELECT account_id FROM billing_details WHERE account_id > %(after)s ORDER BY account_id LIMIT %(limit)s
)
SELECT account_id,
       EXISTS (SELECT FROM usage_records AS usage
               WHERE usage.account_id = page.account_id AND usage.created_at < %(before)s
                 AND billed_amount IS NOT NULL AND billed_on IS NULL)
       AND NOT EXISTS (SELECT FROM subscriptions
                       WHERE subscriptions.account_id = page.account_id AND subscriptions.state <> 'ended')
       AND NOT EXISTS (SELECT FROM invoices
                       WHERE invoices.account_id = page.account_id AND reason = 'usage' AND period_end = %(before)s
                         AND invoices.state <> 'void') AS to_invoice
FROM page ORDER BY account_id
"""


def accounts_to_invoice(connection: Connection, before: datetime, *, after: str, limit: int) -> list[tuple[str, bool]]:
    """Return the next accounts later than `after`, and whether each has usage from `before` to be invoiced by month."""
    rows = fetch_all(connection, TO_INVOICE, {"before": before, "after": after, "limit": limit})
    return [(row["account_id"], row["to_invoice"]) for row in rows]

"""Accounts that pay in advance: they may use what their plan includes and their credits, and no more.

Those are the accounts of a plan without overage, and those without a payment method where the gateway charges stored
methods. The usage that no invoice has yet must fit, with tax, as must what unfinished jobs have reserved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from models.billing.currencies import MAX_AMOUNT, ZERO, format_amount
from models.billing.overage import highest_factor, highest_price
from models.platform.database import Connection, fetch_one
from models.platform.errors import SpendingLimitReached

#: The code of the error.
INSUFFICIENT_CREDITS = "insufficient_credits"

#: Gateways that charge stored payment methods only. An account without one cannot pay later.
METHOD_GATEWAYS = frozenset({"stripe"})

#: Condition on a row of `billing_details AS details`: the account pays in advance.
IN_ADVANCE = """(
    EXISTS (SELECT FROM subscriptions JOIN plan_versions
              ON plan_versions.plan_id = subscriptions.plan_id AND version = plan_version
            WHERE subscriptions.account_id = details.account_id AND state NOT IN ('incomplete', 'ended')
              AND overage ->> 'mode' = 'none')
    OR %(method_required)s AND NOT EXISTS (
        SELECT FROM payment_methods WHERE payment_methods.account_id = details.account_id AND detached_at IS NULL))"""


@dataclass(frozen=True, slots=True)
class PrepaidAccount:
    """What an account may use, and what it has used.

    included          usage within the fee of the period, and the price of what exceeds it
    used, reserved    usage of the period that no invoice has, and what unfinished jobs may cost
    earlier           usage of earlier periods that is on no finalised invoice yet, of which `earlier_included` is free
    tax_rate          in percent
    """

    currency: str
    credits: Decimal
    included: Decimal
    overage: Mapping[str, Any] | None
    used: Decimal
    reserved: Decimal
    earlier: Decimal
    earlier_included: Decimal
    tax_rate: Decimal

    def allows(self, amount: Decimal) -> bool:
        """Return whether usage that costs at most `amount` by the price list can be paid."""
        beyond = max(self.used + self.reserved + amount - self.included, ZERO)
        return highest_price(beyond, self.overage) * self._tax <= self._free_credits

    @property
    def left(self) -> Decimal:
        """The amount by the price list that can certainly be paid."""
        factor = highest_factor(self.overage) * self._tax
        beyond = self._free_credits / factor if factor else MAX_AMOUNT
        return max(self.included + beyond - self.used - self.reserved, ZERO)

    @property
    def _free_credits(self) -> Decimal:
        """The credits that usage of earlier periods leaves."""
        beyond = max(self.earlier - self.earlier_included, ZERO)
        return max(self.credits - highest_price(beyond, self.overage) * self._tax, ZERO)

    @property
    def _tax(self) -> Decimal:
        return 1 + self.tax_rate / 100


# In one statement, so that a job which ends meanwhile is either reserved or used. Usage that no invoice has is all that
# was spent less the lines of invoices, since an account may have millions of usage records. Those of before the period
# are few: a renewal has just begun, whose draft collects them.
READ = """
WITH plan AS (
    SELECT subscriptions.period_start, plan_versions.overage,
           included_before + included_amount * least(
               1, extract(epoch FROM period_end - greatest(version_since, period_start))
                  / extract(epoch FROM period_end - period_start)) AS included
    FROM subscriptions JOIN plan_versions
      ON plan_versions.plan_id = subscriptions.plan_id AND version = plan_version
    WHERE subscriptions.account_id = %(account_id)s AND state IN ('trialing', 'active', 'past_due')
), spent AS (
    SELECT coalesce(sum(spending.amount), 0) AS amount
    FROM accounts
    CROSS JOIN LATERAL generate_series(date_trunc('month', billed_since AT TIME ZONE 'UTC'), now() AT TIME ZONE 'UTC',
                                       '1 month') AS months (first)
    JOIN spending ON spending.account_id = accounts.id AND spending.month = first::date AND spending.scope = ''
    WHERE accounts.id = %(account_id)s
), invoiced AS (
    SELECT coalesce(sum(exact), 0) AS amount FROM invoices JOIN invoice_lines ON invoice_id = invoices.id
    WHERE invoices.account_id = %(account_id)s AND invoices.state IN ('open', 'paid', 'uncollectible')
      AND invoice_lines.kind = 'usage'
), earlier AS (
    SELECT (SELECT coalesce(sum(billed_amount), 0) FROM usage_records
            WHERE account_id = %(account_id)s AND billed_amount IS NOT NULL AND billed_on IS NULL
              AND created_at < (SELECT period_start FROM plan))
         + (SELECT coalesce(sum(billed_amount), 0) FROM usage_records WHERE billed_on IN (
                SELECT id FROM invoices WHERE account_id = %(account_id)s AND state = 'draft')) AS amount,
           (SELECT coalesce(sum((arguments -> 'included' ->> 'amount')::numeric), 0) FROM jobs
            WHERE account_id = %(account_id)s AND kind = 'invoice.draft'
              AND state IN ('scheduled', 'queued', 'running', 'waiting')) AS included
)
SELECT details.currency, details.tax_rate, plan.overage, coalesce(plan.included, 0) AS included,
       spent.amount - invoiced.amount - earlier.amount AS used, earlier.amount AS earlier,
       earlier.included AS earlier_included,
       (SELECT coalesce(sum(amount - drawn - refunded), 0) FROM credit_grants
        WHERE credit_grants.account_id = details.account_id AND credit_grants.currency = details.currency
          AND expired_at IS NULL AND (expires_at IS NULL OR expires_at > now())) AS credits,
       (SELECT coalesce(sum(amount), 0) FROM jobs JOIN spending_reservations AS reserved ON reserved.job_id = jobs.id
        WHERE jobs.account_id = details.account_id AND jobs.id <> ALL (%(besides)s)
          AND jobs.state IN ('scheduled', 'queued', 'running', 'waiting')) AS reserved
FROM billing_details AS details CROSS JOIN spent CROSS JOIN invoiced CROSS JOIN earlier LEFT JOIN plan ON true
WHERE details.account_id = %(account_id)s
"""


def read(connection: Connection, account_id: str, *, besides: Sequence[str] = ()) -> PrepaidAccount:
    """Return what an account with billing details has, besides the reservations of the jobs named."""
    row = fetch_one(connection, READ, {"account_id": account_id, "besides": list(besides)})
    assert row is not None
    return PrepaidAccount(**row)


def check(account: PrepaidAccount, amount: Decimal) -> None:
    """Raise SpendingLimitReached unless the account can pay `amount`. What is free is admitted in any case."""
    if not amount or account.allows(amount):
        return
    used, reserved, most = (format_amount(each) for each in (account.used + account.earlier, account.reserved, amount))
    included, credit = (format_amount(each, account.currency) for each in (account.included, account.credits))
    raise SpendingLimitReached(
        f"The request costs up to {most} {account.currency}. The account pays in advance: it has {included} "
        f"{account.currency} of usage included in its plan and {credit} {account.currency} of credits, of which {used} "
        f"are used and {reserved} are reserved by unfinished jobs. Buy credits with POST /billing/credits/top_up, add "
        f"a payment method with POST /billing/payment_methods, or change the plan.",
        code=INSUFFICIENT_CREDITS,
    )

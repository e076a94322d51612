"""What an account spends in a calendar month (UTC), its limits, and the reservations of unfinished jobs.

Scopes: '' is the account, 'key:ID' an API key, 'agent:NAME' an agent; 'plan' is the limit of the account's plan. A job
reserves the most that it can cost in the transaction that inserts it. The reservation ends with the job in every case,
so it cannot leak. `models.jobs.usage` adds up what was spent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from models.billing import prices
from models.billing.currencies import ZERO, format_amount
from models.jobs.quota import LOCK
from models.jobs.usage import spending_scopes
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import SpendingLimitReached

#: The scope of the limit that a plan has. Its spending is the account's.
PLAN = "plan"


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """A limit with the currency of its account, and the percentage that was notified of this month; 0 if none was."""

    scope: str
    amount: Decimal
    currency: str
    notified_percent: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What a scope has spent this month, and what unfinished jobs have reserved."""

    spent: Decimal
    reserved: Decimal


LIMITS = """
SELECT scope, amount, currency,
       CASE WHEN notified_month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN notified_percent ELSE 0 END
           AS notified_percent
FROM spending_limits JOIN billing_details USING (account_id) WHERE account_id = %(account_id)s ORDER BY scope
"""


def read_limits(connection: Connection, account_id: str) -> list[SpendingLimit]:
    """Return the limits that the account has set."""
    return [SpendingLimit(**row) for row in fetch_all(connection, LIMITS, {"account_id": account_id})]


# A changed limit notifies again.
SET_LIMIT = """
INSERT INTO spending_limits (account_id, scope, amount) VALUES (%(account_id)s, %(scope)s, %(amount)s)
ON CONFLICT (account_id, scope) DO UPDATE SET amount = excluded.amount, notified_month = NULL, notified_percent = 0
"""


def set_limit(connection: Connection, account_id: str, scope: str, amount: Decimal) -> None:
    """Set a limit per month. It applies from the account's next request on."""
    connection.execute(SET_LIMIT, {"account_id": account_id, "scope": scope, "amount": amount})


DELETE_LIMIT = "DELETE FROM spending_limits WHERE account_id = %(account_id)s AND scope = %(scope)s"


def delete_limit(connection: Connection, account_id: str, scope: str) -> bool:
    """Delete a limit. Returns whether there was one."""
    return connection.execute(DELETE_LIMIT, {"account_id": account_id, "scope": scope}).rowcount > 0


SPENDING = """
SELECT coalesce((SELECT sum(amount) FROM spending
                 WHERE account_id = %(account_id)s AND scope = %(scope)s
                   AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date), 0) AS spent,
       coalesce((SELECT sum(amount) FROM jobs JOIN spending_reservations AS reserved ON reserved.job_id = jobs.id
                 WHERE jobs.account_id = %(account_id)s AND %(scope)s = ANY (reserved.scopes)
                   AND jobs.id <> ALL (%(besides)s)
                   AND jobs.state IN ('scheduled', 'queued', 'running', 'waiting')), 0) AS reserved
"""


def monthly_spending(
    connection: Connection, account_id: str, scope: str = "", *, besides: Sequence[str] = ()
) -> Spending:
    """Return what the scope has spent and reserved this month, besides the reservations of the jobs named."""
    own = "" if scope == PLAN else scope
    parameters = {"account_id": account_id, "scope": own, "besides": list(besides)}
    row = fetch_one(connection, SPENDING, parameters)
    assert row is not None
    return Spending(**row)


APPLICABLE = """
SELECT scope, amount, currency FROM spending_limits JOIN billing_details USING (account_id)
WHERE account_id = %(account_id)s AND scope = ANY (%(scopes)s)
UNION ALL
SELECT 'plan', spending_limit, billing_details.currency
FROM subscriptions JOIN billing_details USING (account_id)
JOIN plan_versions ON plan_versions.plan_id = subscriptions.plan_id AND version = plan_version
WHERE account_id = %(account_id)s AND state <> 'ended' AND spending_limit IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class ApplicableLimit:
    """A limit that a job is checked against."""

    scope: str
    amount: Decimal
    currency: str

    @property
    def name(self) -> str:
        """What the limit belongs to, for people."""
        kind, _, name = self.scope.partition(":")
        return {"": "the account", PLAN: "the plan", "key": f"the API key {name}"}.get(kind, f"the agent {name}")


def applicable_limits(
    connection: Connection, account_id: str, key_id: str | None, agent: str | None = None
) -> list[ApplicableLimit]:
    """Return the limits that a job is checked against. Without any it needs no reservation."""
    parameters = {"account_id": account_id, "scopes": spending_scopes(key_id, agent)}
    return [ApplicableLimit(**row) for row in fetch_all(connection, APPLICABLE, parameters)]


@dataclass(frozen=True, slots=True)
class MostTokens:
    """The most tokens that a job can use, for which it reserves money; `context` bounds both together."""

    model: str
    input_tokens: int
    output_tokens: int
    context: int | None = None


RESERVE = """
INSERT INTO spending_reservations (job_id, account_id, scopes, amount)
SELECT job_id, %(account_id)s, %(scopes)s, amount
FROM unnest(%(job_ids)s::text[], %(amounts)s::numeric[]) AS reserved (job_id, amount) WHERE amount > 0
ON CONFLICT (job_id) DO NOTHING
"""


def reserve(
    connection: Connection,
    account_id: str,
    most: Mapping[str, MostTokens],
    *,
    key_id: str | None = None,
    agent: str | None = None,
) -> None:
    """Reserve the most that jobs can cost, by the jobs' ids, in the transaction that inserts them afterwards.

    Call it before any of the account's jobs is locked: it locks the account, so that two requests cannot reserve the
    same money. Without a limit it locks and reserves nothing. Raises SpendingLimitReached.
    """
    limits = applicable_limits(connection, account_id, key_id, agent)
    if not limits:
        return
    connection.execute(LOCK, {"account_id": account_id})
    amounts = {id_: highest_cost(connection, limits[0].currency, each) for id_, each in most.items()}
    for limit in limits:
        now = monthly_spending(connection, account_id, limit.scope, besides=list(most))
        _check(limit, now, sum(amounts.values(), ZERO))
    parameters = {
        "account_id": account_id,
        "scopes": spending_scopes(key_id, agent),
        "job_ids": list(amounts),
        "amounts": list(amounts.values()),
    }
    connection.execute(RESERVE, parameters)


def highest_cost(connection: Connection, currency: str, most: MostTokens) -> Decimal:
    """Return the most that a job can cost at the prices in force, whichever endpoint serves it."""
    in_force = prices.prices_in_force(connection, most.model, currency)
    return prices.highest_cost(in_force, most.input_tokens, most.output_tokens, most.context)


def _check(limit: ApplicableLimit, now: Spending, amount: Decimal) -> None:
    """Raise SpendingLimitReached unless the limit has `amount` left. What is free is admitted at any limit."""
    if not amount or now.spent + now.reserved + amount <= limit.amount:
        return
    spent, reserved, most = (format_amount(each) for each in (now.spent, now.reserved, amount))
    raise SpendingLimitReached(
        f"The request costs up to {most} {limit.currency}. Of the spending limit of {limit.name}, "
        f"{format_amount(limit.amount, limit.currency)} {limit.currency} per month, {spent} are spent and {reserved} "
        f"are reserved by unfinished jobs."
    )


def tokens_left(connection: Connection, account_id: str, model: str) -> int | None:
    """Return how many tokens of a model the limits have money left for; None if none limits them.

    For the account's own work, which no API key asks for.
    """
    limits = applicable_limits(connection, account_id, None)
    left = [_left(limit, monthly_spending(connection, account_id, limit.scope)) for limit in limits]
    per_token = highest_cost(connection, limits[0].currency, MostTokens(model, 1, 1, 1)) if limits else ZERO
    return int(min(left) / per_token) if per_token else None


def _left(limit: ApplicableLimit, now: Spending) -> Decimal:
    return max(limit.amount - now.spent - now.reserved, ZERO)

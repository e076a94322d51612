"""What an account spends in a calendar month (UTC), its limits, and the reservations of unfinished jobs.

Scopes: '' is the account, 'key:ID' an API key, 'agent:NAME' an agent; 'plan' is the limit of the account's plan, and
'prepaid' what an account that pays in advance can pay for (`models.billing.prepaid`). A job reserves the most that it
can cost in the transaction that inserts it. The reservation ends with the job in every case, so it cannot leak.
`models.jobs.usage` adds up what was spent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from models.billing import prepaid, prices
from models.billing.currencies import ZERO, format_amount
from models.jobs.quota import LOCK
from models.jobs.usage import BACKGROUND, ServiceClass, spending_scopes
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import SpendingLimitReached

#: The scope of the limit that a plan has. Its spending is the account's.
PLAN = "plan"

#: The scope of what an account that pays in advance can pay for. It has no amount of its own.
PREPAID = "prepaid"


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
INSERT INTO spending_limits AS present (account_id, scope, amount) VALUES (%(account_id)s, %(scope)s, %(amount)s)
ON CONFLICT (account_id, scope) DO UPDATE SET amount = excluded.amount, notified_month = NULL, notified_percent = 0
WHERE present.amount <> excluded.amount
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


APPLICABLE = f"""
SELECT scope, amount, currency FROM spending_limits JOIN billing_details USING (account_id)
WHERE account_id = %(account_id)s AND scope = ANY (%(scopes)s)
UNION ALL
SELECT 'plan', spending_limit, billing_details.currency
FROM subscriptions JOIN billing_details USING (account_id)
JOIN plan_versions ON plan_versions.plan_id = subscriptions.plan_id AND version = plan_version
WHERE account_id = %(account_id)s AND state NOT IN ('incomplete', 'ended') AND spending_limit IS NOT NULL
UNION ALL
SELECT 'prepaid', 0, currency FROM billing_details AS details
WHERE account_id = %(account_id)s AND {prepaid.IN_ADVANCE}
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
    connection: Connection,
    account_id: str,
    key_id: str | None,
    agent: str | None = None,
    *,
    method_required: bool = False,
) -> list[ApplicableLimit]:
    """Return the limits that a job is checked against. Without any it needs no reservation.

    method_required  an account without a payment method pays in advance
    """
    scopes = spending_scopes(key_id, agent)
    parameters = {"account_id": account_id, "scopes": scopes, "method_required": method_required}
    return [ApplicableLimit(**row) for row in fetch_all(connection, APPLICABLE, parameters)]


@dataclass(frozen=True, slots=True)
class MostTokens:
    """The most tokens that a job can use, for which it reserves money; `context` bounds both together."""

    model: str
    input_tokens: int
    output_tokens: int
    context: int | None = None
    service_class: ServiceClass = "standard"


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
    method_required: bool = False,
) -> None:
    """Reserve the most that jobs can cost, by the jobs' ids, in the transaction that inserts them afterwards.

    Call it before any of the account's jobs is locked: it locks the account, so that two requests cannot reserve the
    same money. Without a limit it locks and reserves nothing. Raises SpendingLimitReached.
    """
    limits = applicable_limits(connection, account_id, key_id, agent, method_required=method_required)
    if not limits:
        return
    connection.execute(LOCK, {"account_id": account_id})
    amounts = {id_: highest_cost(connection, limits[0].currency, each) for id_, each in most.items()}
    _check_all(connection, account_id, limits, amounts)
    parameters = {
        "account_id": account_id,
        "scopes": spending_scopes(key_id, agent),
        "job_ids": list(amounts),
        "amounts": list(amounts.values()),
    }
    connection.execute(RESERVE, parameters)


def check(
    connection: Connection,
    account_id: str,
    most: Mapping[str, MostTokens],
    *,
    key_id: str | None = None,
    method_required: bool = False,
) -> None:
    """Raise SpendingLimitReached where `reserve` would now. Reserves nothing."""
    if limits := applicable_limits(connection, account_id, key_id, method_required=method_required):
        amounts = {id_: highest_cost(connection, limits[0].currency, each) for id_, each in most.items()}
        _check_all(connection, account_id, limits, amounts)


def _check_all(
    connection: Connection, account_id: str, limits: Sequence[ApplicableLimit], amounts: Mapping[str, Decimal]
) -> None:
    for limit in limits:
        _check(connection, account_id, limit, sum(amounts.values(), ZERO), besides=list(amounts))


def highest_cost(connection: Connection, currency: str, most: MostTokens) -> Decimal:
    """Return the most that a job can cost at the prices in force, whichever endpoint serves it."""
    in_force = prices.prices_in_force(connection, most.model, currency, service_class=most.service_class)
    return prices.highest_cost(in_force, most.input_tokens, most.output_tokens, most.context)


def _check(
    connection: Connection, account_id: str, limit: ApplicableLimit, amount: Decimal, *, besides: Sequence[str]
) -> None:
    """Raise SpendingLimitReached unless the limit has `amount` left. What is free is admitted at any limit."""
    if limit.scope == PREPAID:
        prepaid.check(prepaid.read(connection, account_id, besides=besides), amount)
        return
    now = monthly_spending(connection, account_id, limit.scope, besides=besides)
    if not amount or now.spent + now.reserved + amount <= limit.amount:
        return
    spent, reserved, most = (format_amount(each) for each in (now.spent, now.reserved, amount))
    raise SpendingLimitReached(
        f"The request costs up to {most} {limit.currency}. Of the spending limit of {limit.name}, "
        f"{format_amount(limit.amount, limit.currency)} {limit.currency} per month, {spent} are spent and {reserved} "
        f"are reserved by unfinished jobs."
    )


def tokens_left(connection: Connection, account_id: str, model: str, *, method_required: bool = False) -> int | None:
    """Return how many tokens of a model the limits have money left for; None if none limits them.

    For the account's own work in the background, which no API key asks for.
    """
    limits = applicable_limits(connection, account_id, None, method_required=method_required)
    if not limits:
        return None
    one = MostTokens(model, 1, 1, 1, BACKGROUND)
    per_token = highest_cost(connection, limits[0].currency, one)
    left = min(_left(connection, account_id, limit) for limit in limits)
    return int(left / per_token) if per_token else None


def _left(connection: Connection, account_id: str, limit: ApplicableLimit) -> Decimal:
    if limit.scope == PREPAID:
        return prepaid.read(connection, account_id).left
    now = monthly_spending(connection, account_id, limit.scope)
    return max(limit.amount - now.spent - now.reserved, ZERO)

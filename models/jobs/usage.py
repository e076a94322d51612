"""The usage record of each job: the tokens billed, and what they cost. It outlives the job."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from models.jobs.catalogue import is_batch
from models.jobs.jobs import Job
from models.platform.database import Connection

#: What prices may differ by, besides the model and the endpoint.
ServiceClass = Literal["standard", "batch", "priority"]

#: The class of jobs in the queues of background work.
BACKGROUND: ServiceClass = "batch"

#: The job argument that names the API key whose request created the job.
KEY_ARGUMENT = "key_id"

#: The job argument that names the class of a job outside the queues of background work. Without it: standard.
CLASS_ARGUMENT = "service_class"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens billed for a job: those journalled. `reasoning_tokens` are among the output tokens."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class UsageSource:
    """What decides the price of a job's tokens, and for whom they count.

    created_at     when the job was created; None: now
    endpoint       the upstream that served it; empty: the local engine
    """

    created_at: datetime | None = None
    user_id: str | None = None
    key_id: str | None = None
    agent: str | None = None
    service_class: ServiceClass = "standard"
    endpoint: str = ""

    @classmethod
    def of_job(cls, job: Job, endpoint: str = "") -> "UsageSource":
        """Return the source of a job's usage, which an endpoint or else the local engine has served."""
        service_class = BACKGROUND if is_batch(job.queue) else job.arguments.get(CLASS_ARGUMENT, "standard")
        key_id = job.arguments.get(KEY_ARGUMENT)
        return cls(job.created_at, job.owner_id, key_id, service_class=service_class, endpoint=endpoint)

    @property
    def scopes(self) -> list[str]:
        """The scopes of spending limits for which the cost counts (`models.billing.spending`)."""
        return spending_scopes(self.key_id, self.agent)


def spending_scopes(key_id: str | None, agent: str | None = None) -> list[str]:
    """Return the scopes of spending for an account's job: the account, its agent and its API key."""
    return ["", *([f"agent:{agent}"] if agent else []), *([f"key:{key_id}"] if key_id else [])]


UNKNOWN = UsageSource()


# One record per job, also after a replay; the month's totals and the ledger get the difference. Usage of a billed
# account is posted at the price in force when the job was created: that of its endpoint and class before a general one.
# A replay after the invoice is not charged: its cost is waived. All in one statement, in the transaction that ends
# the job.
BILL = """
WITH before AS (
    SELECT input_tokens + output_tokens AS tokens, billed_amount FROM usage_records WHERE job_id = %(job_id)s
), price AS (
    SELECT prices.id, prices.currency,
           ((%(input_tokens)s - %(cached_tokens)s) * prices.input + %(cached_tokens)s * prices.cached_input
            + %(output_tokens)s * prices.output) * 0.000001 AS amount
    FROM accounts JOIN billing_details ON billing_details.account_id = accounts.id
    CROSS JOIN LATERAL (
        SELECT id, currency, input, cached_input, output FROM prices
        WHERE model = %(model)s AND service_class IN (%(service_class)s, 'standard')
          AND prices.currency = billing_details.currency AND endpoint IN (%(endpoint)s, '')
          AND valid_from <= coalesce(%(created_at)s::timestamptz, now())
        ORDER BY service_class <> %(service_class)s, endpoint = '', valid_from DESC LIMIT 1) AS prices
    WHERE accounts.id = %(account_id)s AND accounts.billed_since <= coalesce(%(created_at)s::timestamptz, now())
), billed AS (
    INSERT INTO usage_records AS record (job_id, account_id, model, input_tokens, cached_tokens, output_tokens,
        billed_amount, billed_currency, price_id, billed_user_id, billed_key_id, billed_agent)
    SELECT %(job_id)s, %(account_id)s, %(model)s, %(input_tokens)s, %(cached_tokens)s, %(output_tokens)s,
           price.amount, price.currency, price.id, %(user_id)s, %(key_id)s, %(agent)s
    FROM (SELECT) AS job LEFT JOIN price ON true
    ON CONFLICT (job_id) DO UPDATE SET input_tokens = excluded.input_tokens,
        cached_tokens = excluded.cached_tokens, output_tokens = excluded.output_tokens,
        billed_amount = CASE WHEN record.billed_on IS NULL THEN excluded.billed_amount ELSE record.billed_amount END,
        waived_amount = CASE WHEN record.billed_on IS NOT NULL THEN excluded.billed_amount - record.billed_amount END,
        billed_currency = coalesce(record.billed_currency, excluded.billed_currency),
        price_id = coalesce(record.price_id, excluded.price_id)
    RETURNING billed_amount, billed_currency
), change AS (
    SELECT billed_amount - coalesce((SELECT billed_amount FROM before), 0) AS amount, billed_currency AS currency
    FROM billed WHERE billed_amount IS NOT NULL
), posted AS (
    INSERT INTO postings (account_id, kind, reference, debit, credit, currency, amount)
    SELECT %(account_id)s, 'usage', %(job_id)s, CASE WHEN amount > 0 THEN 'usage_unbilled' ELSE 'revenue' END,
           CASE WHEN amount > 0 THEN 'revenue' ELSE 'usage_unbilled' END, currency, abs(amount)
    FROM change WHERE amount <> 0
), spent AS (
    INSERT INTO spending AS month (account_id, scope, month, slot, amount)
    SELECT %(account_id)s, scope, date_trunc('month', now() AT TIME ZONE 'UTC')::date, hashtext(%(job_id)s) & 15, amount
    FROM change, unnest(%(scopes)s::text[]) AS scope WHERE amount <> 0
    ON CONFLICT (account_id, month, scope, slot) DO UPDATE SET amount = month.amount + excluded.amount
)
INSERT INTO quota_usage AS month (account_id, month, slot, tokens)
VALUES (%(account_id)s, date_trunc('month', now() AT TIME ZONE 'UTC')::date, hashtext(%(job_id)s) & 15,
        %(input_tokens)s + %(output_tokens)s - coalesce((SELECT tokens FROM before), 0))
ON CONFLICT (account_id, month, slot) DO UPDATE SET tokens = month.tokens + excluded.tokens
"""


def bill(
    connection: Connection,
    usage: TokenUsage,
    *,
    job_id: str,
    account_id: str,
    model: str,
    source: UsageSource = UsageSource(),
) -> None:
    """Store a job's usage and post its cost, in the transaction that ends the job."""
    connection.execute(
        BILL,
        {
            "job_id": job_id,
            "account_id": account_id,
            "model": model,
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "created_at": source.created_at,
            "user_id": source.user_id,
            "key_id": source.key_id,
            "agent": source.agent,
            "service_class": source.service_class,
            "endpoint": source.endpoint,
            "scopes": source.scopes,
        },
    )

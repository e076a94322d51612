"""The usage record of each job: the tokens billed, and what they cost. It outlives the job.

Several engines may serve one job: a turn has several generations, or continues with another engine after its worker
died. Each of these segments has its own price; `usage_segments` has a row for each, if there are several, and for one
that an endpoint has served by another name than that of the model asked for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
class Segment:
    """The part of a job's tokens that one engine has read or generated.

    model     as the engine names it, which may not be what the customer asked for
    endpoint  the upstream that served it; empty: a local engine; None: unknown
    """

    model: str
    endpoint: str | None
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


def merge_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Add up the segments of each engine, in the order of their first ones."""
    merged: dict[tuple[str, str | None], Segment] = {}
    for segment in segments:
        engine = (segment.model, segment.endpoint)
        earlier = merged.get(engine, Segment(*engine))
        merged[engine] = replace(
            segment,
            input_tokens=earlier.input_tokens + segment.input_tokens,
            cached_tokens=earlier.cached_tokens + segment.cached_tokens,
            output_tokens=earlier.output_tokens + segment.output_tokens,
        )
    return list(merged.values())


@dataclass(frozen=True, slots=True)
class GenerationTimes:
    """How fast a job was answered; None: unknown.

    first_token_seconds  from the job's creation until its first token
    tokens_per_second    of the tokens after the first ones
    """

    first_token_seconds: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class UsageSource:
    """What decides the price of a job's tokens, and for whom they count.

    created_at     when the job was created; None: now
    endpoint       the upstream that served what no segment names; empty: the local engine
    repeated       the job had several attempts, of which an earlier one may have been billed before a replay
    kind           of the job; None: unknown
    queue_seconds  from the job's creation until its first attempt
    generation     how fast it was answered
    """

    created_at: datetime | None = None
    user_id: str | None = None
    key_id: str | None = None
    agent: str | None = None
    service_class: ServiceClass = "standard"
    endpoint: str = ""
    repeated: bool = False
    kind: str | None = None
    queue_seconds: float | None = None
    generation: GenerationTimes = GenerationTimes()

    @classmethod
    def of_job(cls, job: Job, endpoint: str = "", generation: GenerationTimes = GenerationTimes()) -> "UsageSource":
        """Return the source of a job's usage, which an endpoint or else the local engine has served."""
        service_class = BACKGROUND if is_batch(job.queue) else job.arguments.get(CLASS_ARGUMENT, "standard")
        key_id, repeated = job.arguments.get(KEY_ARGUMENT), job.attempt > 1
        queue_seconds = (job.started_at - job.created_at).total_seconds() if job.started_at else None
        return cls(
            job.created_at,
            job.owner_id,
            key_id,
            None,
            service_class,
            endpoint,
            repeated,
            job.kind,
            queue_seconds,
            generation,
        )

    @property
    def scopes(self) -> list[str]:
        """The scopes of spending limits for which the cost counts (`models.billing.spending`)."""
        return spending_scopes(self.key_id, self.agent)


def spending_scopes(key_id: str | None, agent: str | None = None) -> list[str]:
    """Return the scopes of spending for an account's job: the account, its agent and its API key."""
    return ["", *([f"agent:{agent}"] if agent else []), *([f"key:{key_id}"] if key_id else [])]


UNKNOWN = UsageSource()


# One record per job, also after a replay; the month's totals and the ledger get the difference. Usage of a billed
# account is posted at the price in force when the job was created. That of its class comes before one of the standard
# class; then that of the model asked for at the endpoint, that of the endpoint's own model, and that of the model asked
# for at any endpoint. A replay after the invoice is not charged: its cost is waived. All in one statement, in the
# transaction that ends the job.
TEMPLATE = """
WITH before AS (
    SELECT input_tokens + output_tokens AS tokens, billed_amount FROM usage_records WHERE job_id = %(job_id)s
), segments AS (
    {segments}
), priced AS (
    SELECT position, prices.id, prices.currency,
           ((segment_input - segment_cached) * prices.input + segment_cached * prices.cached_input
            + segment_output * prices.output) * 0.000001 AS amount
    FROM accounts JOIN billing_details ON billing_details.account_id = accounts.id CROSS JOIN segments
    CROSS JOIN LATERAL (
        SELECT id, currency, input, cached_input, output FROM prices
        WHERE model IN (%(model)s, segment_model) AND service_class IN (%(service_class)s, 'standard')
          AND prices.currency = billing_details.currency AND endpoint IN (segment_endpoint, '')
          AND (model = %(model)s OR endpoint <> '')
          AND valid_from <= coalesce(%(created_at)s::timestamptz, now())
        ORDER BY service_class <> %(service_class)s, endpoint = '', model <> %(model)s, valid_from DESC LIMIT 1
    ) AS prices
    WHERE accounts.id = %(account_id)s AND accounts.billed_since <= coalesce(%(created_at)s::timestamptz, now())
), price AS (
    {price}
), billed AS (
    INSERT INTO usage_records AS record (job_id, account_id, model, input_tokens, cached_tokens, output_tokens,
        billed_amount, billed_currency, price_id, billed_user_id, billed_key_id, billed_agent, usage_kind, usage_class,
        queue_seconds, first_token_seconds, tokens_per_second)
    SELECT %(job_id)s, %(account_id)s, %(model)s, %(input_tokens)s, %(cached_tokens)s, %(output_tokens)s,
           price.amount, price.currency, price.id, %(user_id)s, %(key_id)s, %(agent)s, %(kind)s, %(service_class)s,
           %(queue_seconds)s::real, %(first_token_seconds)s::real, %(tokens_per_second)s::real
    FROM (SELECT) AS job LEFT JOIN price ON true
    ON CONFLICT (job_id) DO UPDATE SET input_tokens = excluded.input_tokens,
        cached_tokens = excluded.cached_tokens, output_tokens = excluded.output_tokens,
        billed_amount = CASE WHEN record.billed_on IS NULL THEN excluded.billed_amount ELSE record.billed_amount END,
        waived_amount = CASE WHEN record.billed_on IS NOT NULL THEN excluded.billed_amount - record.billed_amount END,
        billed_currency = coalesce(record.billed_currency, excluded.billed_currency),
        first_token_seconds = coalesce(record.first_token_seconds, excluded.first_token_seconds),
        tokens_per_second = coalesce(excluded.tokens_per_second, record.tokens_per_second),
        price_id = coalesce({price_id}excluded.price_id)
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
){stored}
INSERT INTO quota_usage AS month (account_id, month, slot, tokens)
VALUES (%(account_id)s, date_trunc('month', now() AT TIME ZONE 'UTC')::date, hashtext(%(job_id)s) & 15,
        %(input_tokens)s + %(output_tokens)s - coalesce((SELECT tokens FROM before), 0))
ON CONFLICT (account_id, month, slot) DO UPDATE SET tokens = month.tokens + excluded.tokens
"""

# What one engine has served, in the first attempt: it has one price, and no segments to replace.
BILL = TEMPLATE.format(
    segments="""SELECT 0 AS position, %(segment_model)s::text AS segment_model, %(endpoint)s::text AS segment_endpoint,
           %(input_tokens)s::int AS segment_input, %(cached_tokens)s::int AS segment_cached,
           %(output_tokens)s::int AS segment_output""",
    price="SELECT id, currency, amount FROM priced",
    price_id="record.price_id, ",
    stored="",
)

# What several engines have served, or an endpoint under another name, or a job of several attempts. The record has the
# price of the first segment that has one; a segment without a price is free. A replay replaces the segments.
BILL_SEGMENTS = TEMPLATE.format(
    segments="""SELECT ordinality - 1 AS position, segment_model, segment_endpoint, segment_input, segment_cached,
           segment_output
    FROM unnest(%(models)s::text[], %(endpoints)s::text[], %(inputs)s::int[], %(cached)s::int[], %(outputs)s::int[])
        WITH ORDINALITY AS segment (segment_model, segment_endpoint, segment_input, segment_cached, segment_output)""",
    price="""SELECT (array_agg(id ORDER BY position))[1] AS id, min(currency) AS currency, sum(amount) AS amount
    FROM priced""",
    price_id="CASE WHEN record.billed_on IS NOT NULL THEN record.price_id END, ",
    stored=""", stored AS (
    INSERT INTO usage_segments (job_id, position, account_id, segment_model, segment_endpoint, segment_input,
                                segment_cached, segment_output, segment_amount, segment_price_id)
    SELECT %(job_id)s, segments.position, %(account_id)s, segment_model, segment_endpoint, segment_input,
           segment_cached, segment_output, priced.amount, priced.id
    FROM segments LEFT JOIN priced ON priced.position = segments.position
    WHERE segments.position < %(stored)s
    ON CONFLICT (job_id, position) DO UPDATE SET segment_model = excluded.segment_model,
        segment_endpoint = excluded.segment_endpoint, segment_input = excluded.segment_input,
        segment_cached = excluded.segment_cached, segment_output = excluded.segment_output,
        segment_amount = excluded.segment_amount, segment_price_id = excluded.segment_price_id
), replaced AS (
    DELETE FROM usage_segments WHERE job_id = %(job_id)s AND position >= %(stored)s
)""",
)


def bill(
    connection: Connection,
    usage: TokenUsage,
    *,
    job_id: str,
    account_id: str,
    model: str,
    source: UsageSource = UsageSource(),
    segments: Sequence[Segment] = (),
) -> None:
    """Store a job's usage and post its cost, in the transaction that ends the job.

    `segments` add up to the usage; without any, one engine has served it under the name of the model asked for.
    """
    parts = segments or [Segment(model, None, usage.input_tokens, usage.cached_tokens, usage.output_tokens)]
    endpoints = [source.endpoint if part.endpoint is None else part.endpoint for part in parts]
    renamed = bool(endpoints[0]) and parts[0].model != model
    stored = len(parts) if len(parts) > 1 or renamed else 0
    connection.execute(
        BILL_SEGMENTS if stored or source.repeated else BILL,
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
            "kind": source.kind,
            "queue_seconds": source.queue_seconds,
            "first_token_seconds": source.generation.first_token_seconds,
            "tokens_per_second": source.generation.tokens_per_second,
            "scopes": source.scopes,
            "segment_model": parts[0].model,
            "endpoint": endpoints[0],
            "stored": stored,
            "models": [part.model for part in parts],
            "endpoints": endpoints,
            "inputs": [part.input_tokens for part in parts],
            "cached": [part.cached_tokens for part in parts],
            "outputs": [part.output_tokens for part in parts],
        },
    )

"""The usage record of each job: the tokens billed. It outlives the job."""

from dataclasses import dataclass

from models.platform.database import Connection


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens billed for a job: those journalled. `reasoning_tokens` are among the output tokens."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0


# One record per job, also after a replay; the month's total grows by the difference.
BILL = """
WITH before AS (
    SELECT input_tokens + output_tokens AS tokens FROM usage_records WHERE job_id = %(job_id)s
), billed AS (
    INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens)
    VALUES (%(job_id)s, %(account_id)s, %(model)s, %(input_tokens)s, %(cached_tokens)s, %(output_tokens)s)
    ON CONFLICT (job_id) DO UPDATE SET input_tokens = excluded.input_tokens,
        cached_tokens = excluded.cached_tokens, output_tokens = excluded.output_tokens
)
INSERT INTO quota_usage AS month (account_id, month, slot, tokens)
VALUES (%(account_id)s, date_trunc('month', now() AT TIME ZONE 'UTC')::date, hashtext(%(job_id)s) & 15,
        %(input_tokens)s + %(output_tokens)s - coalesce((SELECT tokens FROM before), 0))
ON CONFLICT (account_id, month, slot) DO UPDATE SET tokens = month.tokens + excluded.tokens
"""


def bill(connection: Connection, usage: TokenUsage, *, job_id: str, account_id: str, model: str) -> None:
    """Store a job's usage in the transaction that ends it."""
    connection.execute(
        BILL,
        {
            "job_id": job_id,
            "account_id": account_id,
            "model": model,
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
        },
    )

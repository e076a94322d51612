"""Checks of payments and refunds: the ledger, and the gateway's own books where they can be read here."""

from pipelines.billing.audit.check import Check

POSTED = Check(
    "payment_posting",
    "each payment that has arrived is posted with its amount and its fee, and no other is",
    """
WITH posted AS (
    SELECT reference, sum(amount) FILTER (WHERE kind = 'payment' AND debit = 'gateway') AS amount,
           sum(amount) FILTER (WHERE kind = 'fee' AND debit = 'fees') AS fee
    FROM postings WHERE kind IN ('payment', 'fee') GROUP BY reference
), received AS (
    SELECT id, account_id, amount, fee FROM payments WHERE state IN ('succeeded', 'refunded', 'disputed')
)
SELECT coalesce(id, reference) AS subject, account_id,
       coalesce(received.amount, 0) || ' with fee ' || coalesce(received.fee, 0) AS expected,
       coalesce(posted.amount, 0) || ' with fee ' || coalesce(posted.fee, 0) AS found
FROM received FULL JOIN posted ON reference = id
WHERE coalesce(received.amount, 0) <> coalesce(posted.amount, 0) OR coalesce(received.fee, 0) <> coalesce(posted.fee, 0)
""",
)

# A refund that the customer's bank returns is posted back under `ID:failed`.
REFUNDED = Check(
    "refund_posting",
    "each refund that has succeeded is posted with its amount, and no other is",
    """
WITH posted AS (
    SELECT split_part(reference, ':', 1) AS refund_id,
           sum(CASE WHEN debit = 'receivable' THEN amount ELSE -amount END) AS amount
    FROM postings WHERE kind = 'refund' GROUP BY 1
), returned AS (
    SELECT id, account_id, amount FROM refunds WHERE state = 'succeeded'
)
SELECT coalesce(id, refund_id) AS subject, account_id, coalesce(returned.amount, 0)::text AS expected,
       coalesce(posted.amount, 0)::text AS found
FROM returned FULL JOIN posted ON refund_id = id
WHERE coalesce(returned.amount, 0) <> coalesce(posted.amount, 0)
""",
)

LEFT = Check(
    "payment_refunded",
    "what each payment has given back is the sum of its refunds that have not failed",
    """
WITH returned AS (
    SELECT payment_id, sum(amount) AS amount FROM refunds WHERE state <> 'failed' GROUP BY payment_id
)
SELECT id AS subject, account_id, coalesce(returned.amount, 0)::text AS expected, refunded::text AS found
FROM payments LEFT JOIN returned ON payment_id = id WHERE refunded <> coalesce(returned.amount, 0)
""",
)

# A dispute that an earlier version saw won is posted back under `ID:won`.
DISPUTED = Check(
    "dispute_posting",
    "what customers' banks have taken back of each payment, and what of it is lost, is posted",
    """
WITH posted AS (
    SELECT split_part(reference, ':', 1) AS payment_id,
           sum(CASE WHEN debit = 'disputes' THEN amount WHEN credit = 'disputes' THEN -amount ELSE 0 END) AS disputed,
           sum(CASE WHEN debit = 'bad_debt' THEN amount WHEN credit = 'bad_debt' THEN -amount ELSE 0 END) AS lost
    FROM postings WHERE kind = 'dispute' GROUP BY 1
), taken AS (
    SELECT id, account_id, disputed_amount, lost_amount FROM payments WHERE state = 'disputed'
)
SELECT coalesce(id, payment_id) AS subject, account_id,
       coalesce(disputed_amount, 0) || ', ' || coalesce(lost_amount, 0) || ' lost' AS expected,
       coalesce(disputed, 0) || ', ' || coalesce(lost, 0) || ' lost' AS found
FROM taken FULL JOIN posted ON payment_id = id
WHERE coalesce(disputed_amount, 0) <> coalesce(disputed, 0) OR coalesce(lost_amount, 0) <> coalesce(lost, 0)
""",
)

# The simulator has its books in a table. A payment whose job has not ended may be behind them.
SIMULATED = Check(
    "gateway_payment",
    "the charges in the books of the simulated gateway are its payments here",
    """
WITH charged AS (
    SELECT idempotency_key, sum(amount) AS amount FROM simulated_objects
    WHERE kind = 'charge' AND state = 'succeeded' GROUP BY idempotency_key
), received AS (
    SELECT payments.id, payments.account_id, amount,
           payments.state IN ('succeeded', 'refunded', 'disputed') AS arrived,
           EXISTS (SELECT FROM jobs WHERE jobs.id = payments.job_id AND jobs.finished_at IS NULL) AS in_progress
    FROM payments WHERE gateway = 'test'
)
SELECT coalesce(id, idempotency_key) AS subject, account_id, coalesce(charged.amount, 0)::text AS expected,
       CASE WHEN arrived THEN amount_of.received ELSE 0 END::text AS found
FROM charged FULL JOIN received ON id = idempotency_key,
     LATERAL (SELECT coalesce(received.amount, 0) AS received) AS amount_of
WHERE coalesce(charged.amount, 0) <> CASE WHEN arrived THEN amount_of.received ELSE 0 END
  AND NOT coalesce(in_progress, false)
""",
)

CHECKS = (POSTED, REFUNDED, LEFT, DISPUTED, SIMULATED)

"""Checks of prepaid credits."""

from pipelines.billing.audit.check import Check

BALANCE = Check(
    "credit_balance",
    "what an account's grants have left is the balance of its credits in the ledger",
    """
WITH granted AS (
    SELECT account_id, sum(amount - drawn - refunded) AS amount FROM credit_grants WHERE expired_at IS NULL
    GROUP BY account_id
), posted AS (
    SELECT account_id, sum(CASE WHEN credit = 'credits' THEN amount ELSE -amount END) AS amount
    FROM postings WHERE credit = 'credits' OR debit = 'credits' GROUP BY account_id
), unpaid AS (
    -- A top-up is posted with its invoice, and granted when that is paid.
    SELECT account_id, sum(subtotal - credited) AS amount FROM invoices
    WHERE reason = 'top_up' AND state IN ('open', 'uncollectible') GROUP BY account_id
)
SELECT coalesce(granted.account_id, posted.account_id) AS subject,
       coalesce(granted.account_id, posted.account_id) AS account_id,
       (coalesce(granted.amount, 0) + coalesce(unpaid.amount, 0))::text AS expected,
       coalesce(posted.amount, 0)::text AS found
FROM granted FULL JOIN posted ON posted.account_id = granted.account_id
LEFT JOIN unpaid ON unpaid.account_id = coalesce(granted.account_id, posted.account_id)
WHERE coalesce(granted.amount, 0) + coalesce(unpaid.amount, 0) <> coalesce(posted.amount, 0)
""",
)

DRAWN = Check(
    "credit_draw",
    "what was drawn from each grant is the sum of its draws",
    """
WITH draws AS (
    SELECT grant_id, sum(amount) AS amount FROM credit_draws GROUP BY grant_id
)
SELECT id AS subject, account_id, coalesce(draws.amount, 0)::text AS expected, drawn::text AS found
FROM credit_grants LEFT JOIN draws ON grant_id = id WHERE drawn <> coalesce(draws.amount, 0)
""",
)

POSTED = Check(
    "draw_posting",
    "the draws of each invoice are posted, unless the invoice is void",
    """
WITH draws AS (
    SELECT invoice_id, sum(amount) AS amount FROM credit_draws GROUP BY invoice_id
), posted AS (
    SELECT reference, sum(amount) AS amount FROM postings WHERE kind = 'draw' AND debit = 'credits' GROUP BY reference
)
SELECT coalesce(invoice_id, reference) AS subject, invoices.account_id, coalesce(draws.amount, 0)::text AS expected,
       coalesce(posted.amount, 0)::text AS found
FROM draws FULL JOIN posted ON reference = invoice_id
LEFT JOIN invoices ON invoices.id = coalesce(invoice_id, reference)
WHERE coalesce(draws.amount, 0) <> CASE WHEN invoices.state = 'void' THEN 0 ELSE coalesce(posted.amount, 0) END
""",
)

CHECKS = (BALANCE, DRAWN, POSTED)

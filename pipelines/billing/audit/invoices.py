"""Checks of invoices: lines, usage, postings, numbers, payments and credit notes."""

from pipelines.billing.audit.check import Check

TOTALS = Check(
    "invoice_total",
    "the total of each invoice is the sum of its rounded lines and its tax",
    """
SELECT invoices.id AS subject, account_id, (coalesce(lines.amount, 0) + tax)::text AS expected, total::text AS found
FROM invoices LEFT JOIN (
    SELECT invoice_id, sum(amount) AS amount FROM invoice_lines GROUP BY invoice_id) AS lines
    ON invoice_id = invoices.id
WHERE state <> 'draft' AND (coalesce(lines.amount, 0) <> subtotal OR subtotal + tax <> total)
""",
)

POSTED = Check(
    "invoice_posting",
    "the receivable and the tax that each invoice has posted are its total and its tax",
    """
WITH posted AS (
    SELECT reference,
           sum(CASE WHEN debit = 'receivable' THEN amount WHEN credit = 'receivable' THEN -amount ELSE 0 END) AS total,
           sum(CASE WHEN credit = 'tax' THEN amount WHEN debit = 'tax' THEN -amount ELSE 0 END) AS tax
    FROM postings WHERE kind = 'invoice' GROUP BY reference
), finalised AS (
    SELECT id, account_id, total, tax FROM invoices WHERE state <> 'draft'
)
SELECT coalesce(id, reference) AS subject, account_id,
       coalesce(finalised.total, 0) || ' with tax ' || coalesce(finalised.tax, 0) AS expected,
       coalesce(posted.total, 0) || ' with tax ' || coalesce(posted.tax, 0) AS found
FROM finalised FULL JOIN posted ON reference = id
WHERE coalesce(finalised.total, 0) <> coalesce(posted.total, 0) OR coalesce(finalised.tax, 0) <> coalesce(posted.tax, 0)
""",
)

# A void invoice has given its usage back.
USAGE = Check(
    "invoice_usage",
    "the usage lines of each invoice and the usage that it clears in the ledger are its usage records",
    """
WITH lines AS (
    SELECT invoice_id, sum(exact) AS amount FROM invoice_lines WHERE kind = 'usage' GROUP BY invoice_id
), recorded AS (
    SELECT billed_on, sum(billed_amount) AS amount FROM usage_records WHERE billed_on IS NOT NULL GROUP BY billed_on
), cleared AS (
    SELECT reference, sum(CASE WHEN credit = 'usage_unbilled' THEN amount WHEN debit = 'usage_unbilled' THEN -amount
                               ELSE 0 END) AS amount
    FROM postings WHERE kind IN ('invoice', 'void') GROUP BY reference
)
SELECT coalesce(invoices.id, billed_on) AS subject, account_id, coalesce(recorded.amount, 0)::text AS expected,
       coalesce(lines.amount, 0) || ' on lines, ' || coalesce(cleared.amount, 0) || ' cleared' AS found
FROM (SELECT id, account_id, state FROM invoices WHERE state <> 'draft') AS invoices
FULL JOIN (SELECT billed_on, amount FROM recorded WHERE NOT EXISTS (
               SELECT FROM invoices WHERE id = billed_on AND state = 'draft')) AS recorded ON billed_on = invoices.id
LEFT JOIN lines ON invoice_id = invoices.id LEFT JOIN cleared ON reference = invoices.id
WHERE coalesce(recorded.amount, 0) <> coalesce(cleared.amount, 0)
   OR (state IS DISTINCT FROM 'void' AND coalesce(recorded.amount, 0) <> coalesce(lines.amount, 0))
""",
)

VOID = Check(
    "invoice_void",
    "the postings of each void invoice add up to nothing in each ledger account",
    """
WITH entries AS (
    SELECT reference, debit AS name, amount FROM postings WHERE kind IN ('invoice', 'draw', 'void', 'write_off')
    UNION ALL
    SELECT reference, credit, -amount FROM postings WHERE kind IN ('invoice', 'draw', 'void', 'write_off')
)
SELECT id AS subject, account_id, name || ' 0' AS expected, sum(amount)::text AS found
FROM invoices JOIN entries ON split_part(reference, ':', 1) = id
WHERE state = 'void' GROUP BY id, account_id, name HAVING sum(amount) <> 0
""",
)

NUMBERED = Check(
    "invoice_number",
    "the numbers of a seller's invoices and credit notes have no gap",
    """
SELECT sellers.id AS subject, NULL::text AS account_id,
       last_invoice || ' invoices, ' || last_credit_note || ' credit notes' AS expected,
       invoices || ' invoices, ' || notes || ' credit notes' AS found
FROM sellers, LATERAL (
    SELECT (SELECT count(*) FROM invoices WHERE seller_id = sellers.id AND number IS NOT NULL) AS invoices,
           (SELECT count(*) FROM credit_notes WHERE seller_id = sellers.id) AS notes) AS counts
WHERE last_invoice <> invoices OR last_credit_note <> notes
""",
)

PAID = Check(
    "invoice_paid",
    "what each invoice was paid is the sum of its payments and of the credits drawn for it",
    """
WITH received AS (
    SELECT invoice_id, sum(amount) AS amount FROM payments
    WHERE state IN ('succeeded', 'refunded', 'disputed') AND invoice_id IS NOT NULL GROUP BY invoice_id
), drawn AS (
    SELECT invoice_id, sum(amount) AS amount FROM credit_draws GROUP BY invoice_id
)
SELECT id AS subject, account_id, (coalesce(received.amount, 0) + coalesce(drawn.amount, 0))::text AS expected,
       paid::text AS found
FROM invoices LEFT JOIN received ON received.invoice_id = id LEFT JOIN drawn ON drawn.invoice_id = id
WHERE paid <> coalesce(received.amount, 0) + coalesce(drawn.amount, 0)
""",
)

CREDITED = Check(
    "invoice_credited",
    "what each invoice was credited is the sum of its credit notes, and each note is posted",
    """
WITH noted AS (
    SELECT invoice_id, sum(amount) AS amount FROM credit_notes GROUP BY invoice_id
), posted AS (
    SELECT reference, sum(amount) AS amount FROM postings WHERE kind = 'credit_note' AND credit = 'receivable'
    GROUP BY reference
)
SELECT id AS subject, account_id, coalesce(noted.amount, 0)::text AS expected, credited::text AS found
FROM invoices LEFT JOIN noted ON invoice_id = id WHERE credited <> coalesce(noted.amount, 0)
UNION ALL
SELECT coalesce(credit_notes.id, reference), account_id, coalesce(credit_notes.amount, 0)::text,
       coalesce(posted.amount, 0)::text
FROM credit_notes FULL JOIN posted ON reference = credit_notes.id
WHERE coalesce(credit_notes.amount, 0) <> coalesce(posted.amount, 0)
""",
)

STATE = Check(
    "invoice_state",
    "an invoice is paid if nothing is due, and open if something is",
    """
SELECT id AS subject, account_id, CASE WHEN total - paid - credited + returned > 0 THEN 'open' ELSE 'paid' END
           AS expected, state AS found
FROM invoices
WHERE state IN ('open', 'paid')
  AND state <> CASE WHEN total - paid - credited + returned > 0 THEN 'open' ELSE 'paid' END
""",
)

# A refund with a credit note is owed to the customer while it is pending. A refund without one, of the payment of an
# invoice, is named: the customer owes what no document says. A payment without an invoice is the customer's.
RECEIVABLE = Check(
    "receivable",
    "an account owes what its invoices have due, less pending refunds and payments without an invoice",
    """
WITH owed AS (
    SELECT account_id, sum(amount) AS amount FROM (
        SELECT account_id, total - paid - credited + returned AS amount FROM invoices WHERE state IN ('open', 'paid')
        UNION ALL
        SELECT account_id, -amount FROM refunds WHERE state = 'pending' AND credit_note_id IS NOT NULL
        UNION ALL
        SELECT refunds.account_id, refunds.amount FROM refunds JOIN payments ON payments.id = payment_id
        WHERE refunds.state = 'succeeded' AND invoice_id IS NULL
        UNION ALL
        SELECT account_id, -amount FROM payments
        WHERE invoice_id IS NULL AND state IN ('succeeded', 'refunded', 'disputed')) AS documents
    GROUP BY account_id
), posted AS (
    SELECT account_id, sum(CASE WHEN debit = 'receivable' THEN amount ELSE -amount END) AS amount
    FROM postings WHERE debit = 'receivable' OR credit = 'receivable' GROUP BY account_id
)
SELECT coalesce(owed.account_id, posted.account_id) AS subject,
       coalesce(owed.account_id, posted.account_id) AS account_id, coalesce(owed.amount, 0)::text AS expected,
       coalesce(posted.amount, 0)::text AS found
FROM owed FULL JOIN posted ON posted.account_id = owed.account_id
WHERE coalesce(owed.amount, 0) <> coalesce(posted.amount, 0)
""",
)

CHECKS = (TOTALS, POSTED, USAGE, VOID, NUMBERED, PAID, CREDITED, STATE, RECEIVABLE)

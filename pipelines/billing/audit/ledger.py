"""Checks of the ledger itself."""

from typing import get_args

from models.billing.postings import LedgerAccount
from pipelines.billing.audit.check import Check

_NAMES = ", ".join(f"'{name}'" for name in get_args(LedgerAccount))

# A posting has both sides, so this holds by construction. It is computed nevertheless.
BALANCED = Check(
    "ledger_balance",
    "the entries of each currency add up to zero",
    """
SELECT currency AS subject, NULL::text AS account_id, '0' AS expected, sum(amount)::text AS found
FROM (SELECT currency, amount FROM postings UNION ALL SELECT currency, -amount FROM postings) AS entries
GROUP BY currency HAVING sum(amount) <> 0
""",
)

NAMED = Check(
    "ledger_account",
    "each posting moves an amount between two ledger accounts that exist",
    f"""
SELECT id::text AS subject, account_id, 'two ledger accounts' AS expected, debit || ' ← ' || credit AS found
FROM postings WHERE debit NOT IN ({_NAMES}) OR credit NOT IN ({_NAMES}) OR debit = credit OR amount <= 0
""",  # noqa: S608 - the names are this program's
)

CURRENCY = Check(
    "ledger_currency",
    "the postings of a customer are in the customer's currency",
    """
SELECT postings.id::text AS subject, postings.account_id, coalesce(details.currency, 'billing details') AS expected,
       postings.currency AS found
FROM postings LEFT JOIN billing_details AS details ON details.account_id = postings.account_id
JOIN accounts ON accounts.id = postings.account_id AND accounts.erased_at IS NULL
WHERE details.currency IS DISTINCT FROM postings.currency
""",
)

CHECKS = (BALANCED, NAMED, CURRENCY)

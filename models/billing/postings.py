"""The ledger: postings that move an amount from one ledger account of a customer to another.

One row has both sides, so what is debited equals what is credited by construction. Rows are only inserted. A posting
that was wrong is corrected by one in the other direction.

    usage_unbilled ─► receivable ─► gateway        what the customer used, owes, and has paid
                         ▲
    credits ─────────────┘                         prepaid, or given

A balance is the sum of debits minus that of credits. Assets and expenses are positive, liabilities and revenue
negative.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from models.platform.database import Connection, fetch_all

LedgerAccount = Literal[
    "usage_unbilled",  # asset: usage that is on no invoice yet
    "receivable",      # asset: invoices that are not paid
    "gateway",         # asset: what payment gateways have received
    "disputes",        # asset: payments that the customer's bank has taken back until it decides
    "credits",         # liability: what the customer has prepaid or been given
    "tax",             # liability: collected for the state
    "revenue",
    "refunds",         # revenue that credit notes took back
    "promotions",      # expense: credits given
    "fees",            # expense: of payment gateways
    "bad_debt",        # expense: invoices that nobody will pay
    "rounding",        # the difference between exact usage and the lines of invoices
]  # fmt: skip

Kind = Literal[
    "usage", "invoice", "void", "write_off", "payment", "fee", "refund", "dispute", "credit_note", "grant", "draw",
    "expiry",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Leg:
    """An amount above zero that is moved from `credit` to `debit`."""

    debit: LedgerAccount
    credit: LedgerAccount
    amount: Decimal


def leg(debit: LedgerAccount, credit: LedgerAccount, amount: Decimal) -> list[Leg]:
    """Return the legs of an amount of either sign: in the other direction if it is negative, none if it is zero."""
    if amount == 0:
        return []
    return [Leg(debit, credit, amount)] if amount > 0 else [Leg(credit, debit, -amount)]


def reversed_legs(legs: Iterable[Leg]) -> list[Leg]:
    """Return the legs that take these back."""
    return [Leg(each.credit, each.debit, each.amount) for each in legs]


# A second posting with the same kind, reference and leg has no effect.
POST = """
INSERT INTO postings (account_id, kind, reference, leg, debit, credit, currency, amount)
SELECT %(account_id)s, %(kind)s, %(reference)s, %(after)s + leg - 1, debit, credit, %(currency)s, amount
FROM unnest(%(debits)s::text[], %(credits)s::text[], %(amounts)s::numeric[])
     WITH ORDINALITY AS legs (debit, credit, amount, leg)
ON CONFLICT (reference, kind, leg) WHERE kind <> 'usage' DO NOTHING
"""


def post(
    connection: Connection,
    account_id: str,
    kind: Kind,
    reference: str,
    legs: Iterable[Leg],
    *,
    currency: str,
    after: int = 0,
) -> None:
    """Post the legs in the caller's transaction. The same kind and reference are posted once.

    after  how many legs of the reference are there already
    """
    entries = list(legs)
    if not entries:
        return
    parameters = {
        "account_id": account_id,
        "kind": kind,
        "reference": reference,
        "currency": currency,
        "after": after,
        "debits": [each.debit for each in entries],
        "credits": [each.credit for each in entries],
        "amounts": [each.amount for each in entries],
    }
    connection.execute(POST, parameters)


POSTED = """
SELECT debit, credit, amount FROM postings WHERE reference = %(reference)s AND kind = %(kind)s AND kind <> 'usage'
ORDER BY leg
"""


def posted_legs(connection: Connection, kind: Kind, reference: str) -> list[Leg]:
    """Return the legs of a reference."""
    return [Leg(**row) for row in fetch_all(connection, POSTED, {"reference": reference, "kind": kind})]


BALANCES = """
SELECT name, currency, sum(amount) AS balance FROM (
    SELECT debit AS name, currency, amount FROM postings WHERE account_id = %(account_id)s
    UNION ALL
    SELECT credit, currency, -amount FROM postings WHERE account_id = %(account_id)s) AS entries
GROUP BY name, currency
"""


def balances(connection: Connection, account_id: str) -> Mapping[tuple[str, str], Decimal]:
    """Return a customer's balances by (ledger account, currency)."""
    rows = fetch_all(connection, BALANCES, {"account_id": account_id})
    return {(row["name"], row["currency"]): row["balance"] for row in rows}

"""Revenue: what the ledger has of invoices, payments, refunds and credits. Usage that is on no invoice is not in it.

Each amount is what postings of some kinds have moved into one ledger account, or out of it. These postings are few, and
never change, so they have no roll-ups: an index has them by time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.billing.postings import Kind, LedgerAccount
from models.platform.database import Connection, fetch_all
from models.reports.selection import QUARTER_OF, Selection

#: What revenue is grouped and filtered by.
DIMENSIONS = ("account_id",)


@dataclass(frozen=True, slots=True)
class Movement:
    """What postings of these kinds debit to a ledger account, less what they credit; `sign` -1: the other way."""

    account: LedgerAccount
    sign: int
    kinds: tuple[Kind, ...]

    @property
    def expression(self) -> str:
        """SQL: the sum."""
        kinds = ", ".join(f"'{kind}'" for kind in self.kinds)
        amount = f"CASE '{self.account}' WHEN debit THEN amount WHEN credit THEN -amount ELSE 0 END"
        return f"coalesce(sum({self.sign} * {amount}) FILTER (WHERE kind IN ({kinds})), 0)"


#: The columns of the report. `invoiced` includes taxes, and credits that are bought.
MOVEMENTS: Mapping[str, Movement] = {
    "invoiced": Movement("receivable", 1, ("invoice",)),
    "tax": Movement("tax", -1, ("invoice",)),
    "voided": Movement("receivable", -1, ("void",)),
    "credit_notes": Movement("receivable", -1, ("credit_note",)),
    "paid": Movement("receivable", -1, ("payment",)),
    "refunded": Movement("gateway", -1, ("refund",)),
    "disputed": Movement("gateway", -1, ("dispute",)),
    "written_off": Movement("bad_debt", 1, ("write_off",)),
    "fees": Movement("fees", 1, ("fee",)),
    "credits_added": Movement("credits", -1, ("invoice", "grant")),
    "credits_used": Movement("credits", 1, ("draw",)),
    "credits_expired": Movement("credits", 1, ("expiry",)),
}

SUM = f"""
SELECT {{keys}}{", ".join(f"{movement.expression} AS {name}" for name, movement in MOVEMENTS.items())}
FROM (SELECT {QUARTER_OF.format(time="posted_at")} AS quarter, account_id, kind, debit, credit, currency, amount
      FROM postings WHERE kind <> 'usage' AND posted_at >= %(start)s AND posted_at < %(end)s) AS posting
WHERE true{{filters}} {{grouping}}
"""


def revenue(connection: Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return the amounts of each group and currency."""
    grouped = selection.with_groups("currency")
    filters = selection.condition(DIMENSIONS)
    statement = SUM.format(keys=grouped.keys, filters=filters, grouping=grouped.grouping)
    return fetch_all(connection, statement, selection.parameters())

"""The lines of invoices. A line is rounded once, when it is inserted; it is never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_all
from models.platform.records import columns

LineKind = Literal["fee", "proration", "usage", "included", "overage", "top_up"]


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line to invoice. `amount` is exact and of either sign; it is rounded once, when the invoice is finalised."""

    kind: LineKind
    description: str
    amount: Decimal
    quantity: Decimal | int = 1
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A row of `invoice_lines`. `exact` is the amount before it was rounded."""

    position: int
    kind: LineKind
    description: str
    quantity: Decimal
    details: Mapping[str, Any]
    exact: Decimal
    amount: Decimal


INSERT_LINES = """
INSERT INTO invoice_lines (invoice_id, position, kind, description, quantity, details, exact, amount)
SELECT %(invoice_id)s, position + (SELECT count(*) FROM invoice_lines WHERE invoice_id = %(invoice_id)s), kind,
       description, quantity, details, exact, round(exact, %(digits)s)
FROM unnest(%(kinds)s::text[], %(descriptions)s::text[], %(quantities)s::numeric[], %(details)s::jsonb[],
            %(exacts)s::numeric[]) WITH ORDINALITY AS lines (kind, description, quantity, details, exact, position)
"""


def append_lines(connection: Connection, invoice_id: str, lines: Sequence[NewLine], digits: int) -> None:
    """Append lines to a draft, each rounded to `digits` decimals, halves away from zero."""
    parameters = {
        "invoice_id": invoice_id,
        "digits": digits,
        "kinds": [line.kind for line in lines],
        "descriptions": [line.description for line in lines],
        "quantities": [Decimal(line.quantity) for line in lines],
        "details": [Jsonb(dict(line.details)) for line in lines],
        "exacts": [line.amount for line in lines],
    }
    if lines:
        connection.execute(INSERT_LINES, parameters)


LINES = f"""
SELECT {columns(Line, "invoice_lines")} FROM invoice_lines JOIN invoices ON invoices.id = invoice_id
WHERE invoice_id = %(id)s AND account_id = %(account_id)s ORDER BY position
"""


def read_lines(connection: Connection, invoice_id: str, account_id: str) -> list[Line]:
    """Return the lines of an invoice of the account, in their order."""
    rows = fetch_all(connection, LINES, {"id": invoice_id, "account_id": account_id})
    return [Line(**row) for row in rows]

"""Run all checks of the books, in one snapshot of the database."""

from collections.abc import Iterator, Sequence

from models.platform.database import Connection
from pipelines.billing.audit import credits, invoices, ledger, payments, usage
from pipelines.billing.audit.check import Check, Difference

CHECKS: Sequence[Check] = (
    *ledger.CHECKS,
    *usage.CHECKS,
    *invoices.CHECKS,
    *payments.CHECKS,
    *credits.CHECKS,
)

#: Differences that are read at a time.
BATCH = 500

# All checks must see the same state. Nothing is changed.
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def differences(connection: Connection, checks: Sequence[Check] = CHECKS) -> Iterator[Difference]:
    """Yield the differences that the checks find, in a transaction that has not read anything yet.

    Reads them through a cursor of the server, so that memory does not depend on their number.
    """
    connection.execute(SNAPSHOT)
    for check in checks:
        yield from run_check(connection, check)


def run_check(connection: Connection, check: Check) -> Iterator[Difference]:
    """Yield the differences that a check finds, in the caller's transaction."""
    with connection.cursor(name=f"audit_{check.name}") as cursor:
        cursor.itersize = BATCH
        for row in cursor.execute(check.statement):
            yield Difference(check.name, **row)

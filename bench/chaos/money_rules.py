"""Rules about money: the books agree, as `sangha audit money` proves it."""

from collections.abc import Iterator
from decimal import Decimal

from bench.chaos.violations import Violation
from models.platform.database import Database
from pipelines.billing.audit.money import differences

#: The price of a million tokens in a run. Its digits show an amount that was rounded.
PRICE = Decimal("0.12345678")

#: A monthly limit that no run reaches, so that every request reserves money.
LIMIT = Decimal(1_000_000)


def check(database: Database) -> Iterator[Violation]:
    """Check the books of all accounts."""
    with database.transaction() as connection:
        for found in differences(connection):
            detail = f"{found.check}: expected {found.expected}, found {found.found}"
            yield Violation("money", f"{found.subject} of {found.account_id}", detail)

"""Rules about money: the books agree, as `sangha audit money` proves it."""

from collections.abc import Iterator
from decimal import Decimal

from bench.chaos.violations import Violation
from models.platform.database import Database
from pipelines.billing.audit.money import CHECKS, differences

#: The price of a million tokens in a run. Its digits show an amount that was rounded.
PRICE = Decimal("0.12345678")

#: A monthly limit that no run reaches, so that every request reserves money.
LIMIT = Decimal(1_000_000)


#: What a worker of the previous version ends has no posting. An installation bills nobody until it is upgraded.
OF_ONE_VERSION = ("usage_unposted",)


def check(database: Database, *, two_versions: bool = False) -> Iterator[Violation]:
    """Check the books of all accounts. `two_versions`: processes of the previous version ran beside the others."""
    checks = [each for each in CHECKS if not two_versions or each.name not in OF_ONE_VERSION]
    with database.transaction() as connection:
        for found in differences(connection, checks):
            detail = f"{found.check}: expected {found.expected}, found {found.found}"
            yield Violation("money", f"{found.subject} of {found.account_id}", detail)

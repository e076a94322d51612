"""`sangha audit money`: prove that the ledger, usage, invoices, payments and credits agree."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import chain

import click
import orjson

from models.platform.database import Database
from models.platform.settings import Settings
from ops.database_connection import transaction
from pipelines.billing.audit import gateway_books
from pipelines.billing.audit.check import Check, Difference
from pipelines.billing.audit.money import CHECKS, differences
from pipelines.billing.gateways.gateway import GatewayFailed
from pipelines.billing.gateways.registry import Gateways


def print_audit(settings: Settings, *, as_json: bool, days: int = 0) -> bool:
    """Print each difference as it is found, then a summary. Returns whether there is none.

    days  of payments to compare with the gateways' own books
    """
    found: Counter[str] = Counter()
    for difference in chain(_own_differences(settings), _gateway_differences(settings, days)):
        found[difference.check] += 1
        click.echo(_json(asdict(difference)) if as_json else _line(difference))
    if as_json:
        click.echo(_json({"checks": len(CHECKS), "differences": found.total(), "by_check": dict(found)}))
    else:
        click.echo("\n".join(_summary(check, found[check.name]) for check in CHECKS))
    if days and not as_json:
        click.echo(_summary(Check(gateway_books.NAME, gateway_books.PROVES, ""), found[gateway_books.NAME]))
    return not found


def _own_differences(settings: Settings) -> Iterator[Difference]:
    with transaction(settings) as connection:
        yield from differences(connection)


def _gateway_differences(settings: Settings, days: int) -> Iterator[Difference]:
    """Compare with each gateway's books. One that does not answer is a difference: nothing is proved then."""
    end = datetime.now(UTC)
    if not days:
        return
    with closing(Database.open(settings, size=1, name="audit")) as database:
        for gateway in Gateways(settings, database).with_books():
            try:
                yield from gateway_books.differences(database, gateway, end - timedelta(days=days), end)
            except GatewayFailed as error:
                yield Difference(gateway_books.NAME, gateway.name, None, "its books", str(error))


def _line(difference: Difference) -> str:
    account = f" of account {difference.account_id}" if difference.account_id else ""
    return (
        f"{difference.check}: {difference.subject}{account}: expected {difference.expected}, found {difference.found}"
    )


def _summary(check: Check, count: int) -> str:
    return f"{f'{count} differ' if count else 'ok':>12}  {check.name}: {check.proves}"


def _json(value: object) -> str:
    return orjson.dumps(value).decode()

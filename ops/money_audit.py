"""`sangha audit money`: prove that the ledger, usage, invoices, payments and credits agree."""

from collections import Counter
from dataclasses import asdict

import click
import orjson

from models.platform.settings import Settings
from ops.database_connection import transaction
from pipelines.billing.audit.check import Check, Difference
from pipelines.billing.audit.money import CHECKS, differences


def print_audit(settings: Settings, *, as_json: bool) -> bool:
    """Print each difference as it is found, then a summary. Returns whether there is none."""
    found: Counter[str] = Counter()
    with transaction(settings) as connection:
        for difference in differences(connection):
            found[difference.check] += 1
            click.echo(_json(asdict(difference)) if as_json else _line(difference))
    if as_json:
        click.echo(_json({"checks": len(CHECKS), "differences": found.total(), "by_check": dict(found)}))
    else:
        click.echo("\n".join(_summary(check, found[check.name]) for check in CHECKS))
    return not found


def _line(difference: Difference) -> str:
    account = f" of account {difference.account_id}" if difference.account_id else ""
    return (
        f"{difference.check}: {difference.subject}{account}: expected {difference.expected}, found {difference.found}"
    )


def _summary(check: Check, count: int) -> str:
    return f"{f'{count} differ' if count else 'ok':>12}  {check.name}: {check.proves}"


def _json(value: object) -> str:
    return orjson.dumps(value).decode()

"""`sangha keys`: list and rotate the keys that sign access tokens."""

from datetime import UTC, datetime

import click

from models.access import signing_keys
from models.access.signing_keys import KeyGeneration
from models.accounts import audit
from models.accounts.audit import RequestOrigin
from models.platform.settings import Settings
from ops.database_connection import transaction
from ops.table import align_columns

HEADINGS = ("generation", "since", "state")


def rotate_keys(settings: Settings) -> None:
    """Create a new generation. Web processes sign with it from the next login or refresh on."""
    with transaction(settings) as connection:
        generation = signing_keys.rotate(connection)
        if generation is not None:
            audit.record(connection, "signing_key.rotated", RequestOrigin(), target=str(generation))
    if generation is None:
        click.echo("Another process has rotated the key at the same time; its generation signs new tokens.")
    else:
        hours = signing_keys.ACCEPTANCE.total_seconds() / 3600
        click.echo(f"Generation {generation} signs new tokens; tokens of the previous one expire within {hours:g} h.")


def list_keys(settings: Settings) -> None:
    """Print one line per generation, the signing one last."""
    with transaction(settings) as connection:
        generations = signing_keys.list_generations(connection)
    rows = [
        [row.generation, f"{row.created_at:%Y-%m-%d %H:%M:%S}", _state(row, datetime.now(UTC))] for row in generations
    ]
    click.echo("\n".join(align_columns([HEADINGS, *rows])))


def _state(row: KeyGeneration, now: datetime) -> str:
    if row.until is None:
        return "signing"
    return "retired" if row.until < now else f"valid until {row.until:%Y-%m-%d %H:%M:%S}"

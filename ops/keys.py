"""`sangha keys`: the generations of the key that signs access tokens."""

from datetime import UTC, datetime

import click

from models.access import signing_keys
from models.access.signing_keys import Generation
from models.accounts import audit
from models.accounts.audit import Trail
from models.platform.settings import Settings
from ops.operator import connected, table


def rotate_keys(settings: Settings) -> None:
    """Begin a new generation. Web processes sign with it from the next login or refresh on."""
    with connected(settings) as connection:
        generation = signing_keys.rotate(connection)
        if generation is not None:
            audit.record(connection, "signing_key.rotated", Trail(), target=str(generation))
    if generation is None:
        click.echo("Somebody else has begun a new generation at this moment; that one signs now.")
    else:
        hours = signing_keys.HOLD.total_seconds() / 3600
        click.echo(f"Generation {generation} signs now; tokens of the one before hold for {hours:g} h at most.")


def list_keys(settings: Settings) -> None:
    """One line a generation, the one that signs last."""
    with connected(settings) as connection:
        found = signing_keys.generations(connection)
    rows = [[row.generation, f"{row.created_at:%Y-%m-%d %H:%M:%S}", _state(row, datetime.now(UTC))] for row in found]
    table(["generation", "since", "state"], rows)


def _state(row: Generation, now: datetime) -> str:
    if row.until is None:
        return "signs"
    return "retired" if row.until < now else f"holds until {row.until:%Y-%m-%d %H:%M:%S}"

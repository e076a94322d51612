"""`sangha pools`: workers, threads and jobs of each pool."""

import click

from models.jobs.pool_states import PoolState, list_pool_states
from models.platform.settings import Settings
from ops.breakers import breaker_lines
from ops.database_connection import transaction
from ops.table import align_columns

HEADINGS = ("pool", "workers", "threads", "scheduled", "queued", "running", "waiting", "dead", "oldest")


def show_pools(settings: Settings) -> None:
    """Print one line per pool, and one per endpoint."""
    with transaction(settings) as connection:
        states = list_pool_states(connection)
        breakers = breaker_lines(connection, settings)
    click.echo("\n".join(align_columns([HEADINGS, *map(pool_row, states)])))
    if breakers:
        click.echo("\n" + "\n".join(breakers))


def pool_row(state: PoolState) -> list[object]:
    """Return the cells of a pool's line; `oldest` is the longest time that a due job has been queued."""
    scheduled = f"{state.scheduled}{'+' if state.more_scheduled else ''}"
    numbers = (state.queued, state.running, state.waiting, state.dead)
    oldest = f"{state.oldest:.1f} s" if state.oldest else "-"
    return [state.pool, state.workers, state.threads, scheduled, *numbers, oldest]

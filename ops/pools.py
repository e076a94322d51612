"""`sangha pools`: workers, threads and jobs of each pool."""

import click

from models.jobs.catalogue import BATCH_SUFFIX
from models.jobs.pool_states import PoolState, list_pool_states
from models.platform.settings import Settings
from models.serving.queues import DEFAULT_QUEUE
from models.serving.stranded import UnservedQueue, list_unserved
from ops.breakers import breaker_lines
from ops.database_connection import transaction
from ops.table import align_columns

HEADINGS = ("pool", "workers", "threads", "scheduled", "queued", "running", "waiting", "dead", "oldest")


def show_pools(settings: Settings) -> None:
    """Print one line per pool and per further queue of its models, and one per endpoint."""
    with transaction(settings) as connection:
        states = list_pool_states(connection)
        breakers = breaker_lines(connection, settings)
        unserved = list_unserved(connection)
    click.echo("\n".join(align_columns([HEADINGS, *map(pool_row, states)])))
    if breakers:
        click.echo("\n" + "\n".join(breakers))
    for queue in unserved.values():
        click.echo(f"\n{unserved_line(queue, settings)}")


def pool_row(state: PoolState) -> list[object]:
    """Return the cells of a pool's line; `oldest` is the longest time that a due job has been queued."""
    scheduled = f"{state.scheduled}{'+' if state.more_scheduled else ''}"
    numbers = (state.queued, state.running, state.waiting, state.dead)
    oldest = f"{state.oldest:.1f} s" if state.oldest else "-"
    name = state.pool if state.queue is None else f"  {state.queue}"
    return [name, state.workers, state.threads, scheduled, *numbers, oldest]


def unserved_line(unserved: UnservedQueue, settings: Settings) -> str:
    """Return what waits in a queue without a worker, and what to do."""
    return f"{unserved.queue}: {unserved.jobs} jobs wait, and no worker serves it. {_remedy(unserved.queue, settings)}"


def _remedy(queue: str, settings: Settings) -> str:
    base = queue.removesuffix(BATCH_SUFFIX)
    if base == DEFAULT_QUEUE:
        return "Start `sangha worker inference`."
    pool, name = base.split(".", 1)
    if pool == DEFAULT_QUEUE:
        return f"Start `sangha worker inference --model {name}=PATH`, or cancel them."
    if any(upstream.name == name for upstream in settings.upstreams):
        return "Start `sangha worker upstream`."
    return f"Add {name} to SANGHA_UPSTREAMS and start `sangha worker upstream`, or cancel them."

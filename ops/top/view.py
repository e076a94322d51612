"""Draw a snapshot: tables of engines, pools, queues and endpoints, in two columns where the terminal is wide."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from models.jobs.pool_states import PoolState
from models.serving.breakers import Breaker
from ops.top.snapshot import EngineRow, QueueRow, Snapshot
from ops.version import version

#: Columns from which the tables stand side by side.
WIDE = 140

#: Seconds of waiting from which an age is shown as a warning, and as a fault.
SLOW, TOO_SLOW = 5.0, 60.0

#: Columns that a name has at least.
NAME_WIDTH = 13

#: Cells of a bar of slots.
BAR = 10

ACCENT, MUTED, GOOD, WARNING, FAULT = "cyan", "bright_black", "green", "yellow", "bold red"


class View:
    """A snapshot as rich draws it, in the size of its console.

    problem  why a newer one cannot be read
    hint     the last line; None: none
    """

    def __init__(self, snapshot: Snapshot, *, problem: str | None = None, hint: str | None = None) -> None:
        self.snapshot = snapshot
        self.problem = problem
        self.hint = hint

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts."""
        head = Group(*_head(self.snapshot, self.problem))
        yield head
        hint = [Text(self.hint, style=MUTED, no_wrap=True, overflow="ellipsis")] if self.hint is not None else []
        free = None
        if options.height is not None:
            free = options.height - len(console.render_lines(head, options.update(height=None))) - len(hint)
        body = (_wide if options.max_width >= WIDE else _narrow)(self.snapshot, free)
        lines = console.render_lines(body, options.update(height=None), pad=False, new_lines=True)
        yield from (segment for line in lines[:free] for segment in line)
        yield from hint

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Take the whole width."""
        return Measurement(options.max_width, options.max_width)


def _head(snapshot: Snapshot, problem: str | None) -> Iterable[RenderableType]:
    """Yield the title, the numbers of the whole installation, and what needs attention."""
    title = Text.assemble(("sangha top", f"bold {ACCENT}"), (f"  {version()}", MUTED))
    line = Table.grid(expand=True)
    line.add_column()
    line.add_column(justify="right")
    line.add_row(title, Text(f"{snapshot.time:%Y-%m-%d %H:%M:%S} UTC", style=MUTED))
    yield line
    yield _totals(snapshot)
    if problem is not None:
        yield Text(f"! {problem}", style=FAULT, no_wrap=True, overflow="ellipsis")
    for text in problems(snapshot):
        yield Text(f"! {text}", style=WARNING, no_wrap=True, overflow="ellipsis")
    yield Text()


def _totals(snapshot: Snapshot) -> Text:
    running, queued = (sum(getattr(row, name) for row in snapshot.engines) for name in ("running", "queued"))
    rate, streams = snapshot.tokens_per_second, snapshot.streams
    totals = [
        (str(snapshot.workers), "worker" if snapshot.workers == 1 else "workers"),
        (str(running), "turns running"),
        (str(queued), "queued"),
        ("-" if rate is None else f"{rate:.1f}", "tokens/s"),
        ("-" if streams is None else str(streams.open), "streams"),
        ("-" if streams is None else str(streams.slow), "slow"),
    ]
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, (value, unit) in enumerate(totals):
        text.append("  " if number else "").append(value, style="bold").append(f" {unit}", style=MUTED)
    return text


def problems(snapshot: Snapshot) -> list[str]:
    """Return what needs an operator, and the command that shows more."""
    lines = [] if snapshot.workers else ["No worker is running"]
    lines += [f"{each.queue}: {each.jobs} jobs wait, and no worker serves it" for each in snapshot.unserved]
    lines += [f"Endpoint {each.upstream} is not asked: sangha breakers list" for each in snapshot.breakers
              if each.state == "open"]  # fmt: skip
    if snapshot.dead:
        lines.append(f"{snapshot.dead} dead {'job' if snapshot.dead == 1 else 'jobs'}: sangha dead list")
    return lines


def _wide(snapshot: Snapshot, free: int | None) -> RenderableType:
    engines, pools, endpoints = engine_table(snapshot.engines), pool_table(snapshot.pools), _endpoints(snapshot)
    used = len(snapshot.engines) + 3 + sum(len(table.rows) + 3 for table in endpoints)
    queues = queue_table(snapshot.queues, None if free is None else free - used - 2)
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column(ratio=4)
    grid.add_column(ratio=5)
    grid.add_row(_stack([engines, *endpoints, queues]), pools)
    return grid


def _narrow(snapshot: Snapshot, free: int | None) -> RenderableType:
    """Stack the tables. Where they don't fit, pools without workers and jobs, then young queues are left out."""
    engines, endpoints = engine_table(snapshot.engines), _endpoints(snapshot)
    left = None if free is None else free - len(snapshot.engines) - 3 - sum(len(each.rows) + 3 for each in endpoints)
    pools = snapshot.pools if left is None else _fitting(snapshot.pools, left - 3)
    tables = [engines, *endpoints, pool_table(pools)]
    if left is None or left - len(pools) - 3 >= 4:
        tables.append(queue_table(snapshot.queues, None if left is None else left - len(pools) - 5))
    return _stack(tables)


def _stack(tables: Sequence[Table]) -> Group:
    return Group(*(part for table in tables for part in (table, Text())))


def _fitting(pools: Sequence[PoolState], rows: int) -> Sequence[PoolState]:
    """Return the pools that fit in some rows: those with jobs before those with workers only, in their order."""
    by_importance = sorted(pools, key=lambda pool: (not (pool.queued or pool.running or pool.dead), not pool.workers))
    kept = by_importance[: max(1, rows)]
    return [pool for pool in pools if pool in kept]


def _endpoints(snapshot: Snapshot) -> list[Table]:
    return [breaker_table(snapshot.breakers)] if snapshot.breakers else []


def _table(*headings: str) -> Table:
    """Return a table whose first column takes the free width; the others have numbers."""
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True, padding=0, header_style=f"bold {ACCENT}"
    )
    table.add_column(headings[0], ratio=1, min_width=NAME_WIDTH, no_wrap=True, overflow="ellipsis")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def engine_table(rows: Sequence[EngineRow]) -> Table:
    """Return the table of models and their slots."""
    table = _table("model", "slots", "busy", "queued", "wait", "tokens/s")
    for row in rows:
        rate = "-" if row.tokens_per_second is None else f"{row.tokens_per_second:.1f}"
        table.add_row(row.name, slot_bar(row), f"{row.running}/{row.slots}", number(row.queued), age(row.wait), rate)
    return table


def slot_bar(row: EngineRow) -> Text:
    """Return a bar of busy slots: full in yellow, without slots in red."""
    if not row.slots:
        return Text("no worker", style=FAULT)
    filled = min(BAR, -(-row.running * BAR // row.slots))  # a single busy slot of many shows, too
    style = WARNING if row.running >= row.slots else GOOD
    return Text.assemble(("█" * filled, style), ("░" * (BAR - filled), MUTED))


def pool_table(pools: Sequence[PoolState]) -> Table:
    """Return the table of pools and of further queues of their models."""
    table = _table("pool", "workers", "threads", "running", "queued", "waiting", "later", "dead", "oldest")
    for pool in pools:
        name = Text(pool.pool) if pool.queue is None else Text(f"  {pool.queue}", style=MUTED)
        later = f"{pool.scheduled}{'+' if pool.more_scheduled else ''}"
        table.add_row(
            name, number(pool.workers), number(pool.threads), number(pool.running), number(pool.queued),
            number(pool.waiting), number(pool.scheduled, later), number(pool.dead, style=FAULT),
            age(pool.oldest or None),
        )  # fmt: skip
    return table


def queue_table(queues: Sequence[QueueRow], rows: int | None = None) -> Table:
    """Return the table of queues with jobs, by age, at most some rows."""
    table = _table("queue, by age", "running", "queued", "oldest")
    for row in queues if rows is None else queues[: max(1, rows)]:
        table.add_row(row.queue, number(row.running), number(row.queued), age(row.oldest or None))
    if not queues:
        table.add_row(Text("no jobs", style=MUTED), "", "", "")
    return table


def breaker_table(breakers: Sequence[Breaker]) -> Table:
    """Return the table of endpoints and their circuit breakers."""
    table = _table("endpoint", "breaker", "failures")
    for breaker in breakers:
        style = {"closed": GOOD, "half_open": WARNING}.get(breaker.state, FAULT)
        state = breaker.state.replace("_", " ") + (" (forced)" if breaker.forced_state else "")
        failures = f"{breaker.window_failures} of {breaker.window_requests}" if breaker.window_requests else "-"
        table.add_row(breaker.upstream, Text(state, style=style), failures)
    return table


def number(value: int, text: str | None = None, style: str = "") -> Text:
    """Return a number; zero is muted, so that the others stand out."""
    return Text(text or str(value), style=style if value else MUTED)


def age(seconds: float | None) -> Text:
    """Return a duration with two digits or more: `0.4 s`, `12 s`, `3 min`, `2 h`, `4 d`; `-` for None."""
    if seconds is None:
        return Text("-", style=MUTED)
    style = FAULT if seconds >= TOO_SLOW else WARNING if seconds >= SLOW else ""
    for limit, size, unit in ((10, 1, "s"), (100, 1, "s"), (6_000, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return Text(f"{seconds / size:.{1 if limit == 10 else 0}f} {unit}", style=style)
    return Text(f"{seconds / 86_400:.0f} d", style=style)

"""`python -m bench.trace`: where the time of one turn goes, as a table and a picture."""

import sys
from pathlib import Path
from typing import Literal

import click

from bench import machine
from bench.command import HELP, broker_option, exit_code_of, file_option, servers, write_json
from bench.harness.stack import BrokerName
from bench.progress import Progress
from bench.trace import server
from bench.trace.picture import picture
from bench.trace.run import TOKENS, Trace, trace
from bench.trace.table import HEADINGS, round_trips, totals
from bench.trace.turn import median, steps
from ops.table import align_columns


@click.command(context_settings=HELP)
@broker_option
@click.option("--engine", type=click.Choice(["scripted", "llamacpp"]), default="scripted", help="The engine.")
@click.option("--turns", default=60, show_default=True, help="How many turns to run; the median one is shown.")
@file_option("--picture", "svg", "Draw the turn into this SVG file.")
@click.option("--statements", is_flag=True, help="Show Postgres's time to plan and run each statement; slows it down.")
@file_option("--json", "file", "Write the turn's steps to this file.")
def main(
    broker: BrokerName,
    engine: Literal["scripted", "llamacpp"],
    turns: int,
    svg: Path | None,
    statements: bool,
    file: Path | None,
) -> None:
    """Trace warm turns of 20 tokens, one after another, on servers of its own in a temporary folder.

    The instruments slow a turn down by a few per cent: python -m bench measures without them.
    """
    progress = Progress()

    def work() -> int:
        with servers(broker, progress) as stack:
            traced = trace(stack, turns, engine, log_statements=statements)
        middle = median(traced.turns)
        title = f"A turn of {TOKENS} tokens over {broker}, {engine} engine: {(middle.end - middle.begin) / 1e6:.1f} ms"
        progress.clear()
        show(traced, title, statements)
        median_steps = steps(traced, middle)
        if svg is not None:
            svg.write_text(picture(median_steps, title))
        write_json(file, median_steps)
        return 0

    sys.exit(exit_code_of("bench.trace", progress, work))


def show(traced: Trace, title: str, statements: bool) -> None:
    """Print the table of round trips, and that of statements."""
    trips = align_columns([HEADINGS, *round_trips(traced)], rule=True)
    click.echo("\n".join([machine.describe().line(), title, "", *trips, ""]))
    click.echo("\n".join(totals(traced, TOKENS)))
    if statements:
        rows = server.statements(traced.log, len(traced.turns))
        click.echo("\n".join(["", *align_columns([server.HEADINGS, *rows], rule=True)]))


if __name__ == "__main__":
    main()

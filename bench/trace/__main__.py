"""`python -m bench.trace`: where the time of one turn goes, as a table and a picture."""

import sys
from pathlib import Path
from typing import Literal

import click
import orjson

from bench import machine
from bench.stack import BrokerName, standing
from bench.table import render
from bench.trace import server
from bench.trace.picture import picture
from bench.trace.run import TOKENS, trace
from bench.trace.table import HEADINGS, totals, trips
from bench.trace.turn import median, steps
from models.platform.errors import ConfigurationError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--broker", type=click.Choice(["rabbitmq", "redis"]), default="rabbitmq", help="What carries the queue.")
@click.option("--engine", type=click.Choice(["scripted", "llamacpp"]), default="scripted", help="What answers.")
@click.option("--turns", default=60, show_default=True, help="Turns to take the median one of.")
@click.option("--picture", "svg", type=click.Path(dir_okay=False, path_type=Path), help="Draw it there, as SVG.")
@click.option("--statements", is_flag=True, help="Also ask Postgres how long it plans and runs each; slows it down.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write its steps there.")
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
    try:
        with standing(broker) as stack:
            traced = trace(stack, turns, engine, inside=statements)
    except ConfigurationError as error:
        click.echo(f"bench.trace: {error}", err=True)
        sys.exit(2)
    middle = median(traced.turns)
    found = steps(traced, middle)
    title = f"A turn of {TOKENS} tokens over {broker}, {engine} engine: {(middle.end - middle.begin) / 1e6:.1f} ms"
    click.echo("\n".join([machine.look().line(), title, "", *render(trips(traced), HEADINGS), ""]))
    click.echo("\n".join(totals(traced, TOKENS)))
    if statements:
        click.echo("\n".join(["", *render(server.statements(traced.log, turns), server.HEADINGS)]))
    if svg is not None:
        svg.write_text(picture(found, title))
    if file is not None:
        file.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()

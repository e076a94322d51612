"""`sangha smoke`: check an installation from outside."""

import sys

import click


@click.command()
@click.argument("url")
@click.option("--key", envvar="SANGHA_SMOKE_KEY", show_envvar=True,
              help="API key to use. [default: sign up a user, and erase them afterwards]")  # fmt: skip
@click.option("--model", default="default", show_default=True, help="Model that answers.")
@click.option("--timeout", type=click.FloatRange(1, 3600), default=60.0, show_default=True, help="Seconds per step.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per step.")
def smoke(url: str, key: str | None, model: str, timeout: float, as_json: bool) -> None:
    """Check after a deployment that the installation at URL works: turns, streams, memories, files, errors.

    Prints a line per step with its time. Stops at the first failure, with the id of the request, and exits with 1.
    Deletes what it made. Needs no settings and no access to servers. Pass the key as SANGHA_SMOKE_KEY, because other
    users of a machine can read arguments.
    """
    from ops.smoke import run_smoke

    sys.exit(0 if run_smoke(url, key=key, model=model, timeout=timeout, as_json=as_json) else 1)

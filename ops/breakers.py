"""`sangha breakers`: show the circuit breakers of endpoints, and keep one open or closed."""

from collections.abc import Mapping, Sequence
from typing import Literal

import click

from models.accounts import audit
from models.accounts.audit import RequestOrigin
from models.platform.database import Connection
from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from models.serving import breakers
from models.serving.breakers import Breaker
from ops.database_connection import transaction
from ops.table import align_columns

HEADINGS = ("endpoint", "breaker", "since", "reason", "next probe", "saturated", "failures")

#: What a command does with a breaker.
Order = Literal["open", "closed"]

#: The actions and the origin in the audit log.
ACTIONS: Mapping[Order | None, str] = {"open": "breaker.opened", "closed": "breaker.closed", None: "breaker.released"}
ORIGIN = RequestOrigin(user_agent="sangha breakers")


def show_breakers(settings: Settings) -> None:
    """Print one line per endpoint."""
    with transaction(settings) as connection:
        lines = breaker_lines(connection, settings)
    click.echo("\n".join(lines) if lines else "No endpoints: SANGHA_UPSTREAMS is unset.")


def breaker_lines(connection: Connection, settings: Settings) -> list[str]:
    """Return a table of the breakers; no lines if there are no endpoints."""
    known = known_breakers(connection, settings)
    return align_columns([HEADINGS, *map(breaker_row, known.values())]) if known else []


def known_breakers(connection: Connection, settings: Settings) -> Mapping[str, Breaker]:
    """Return the breakers of the settings' endpoints, and of others that are not closed."""
    stored = breakers.list_breakers(connection)
    named = {upstream.name: stored.get(upstream.name) or Breaker(upstream.name) for upstream in settings.upstreams}
    return named | {name: breaker for name, breaker in stored.items() if breaker.state != "closed"}


def breaker_row(breaker: Breaker) -> Sequence[object]:
    """Return the cells of a breaker's line."""
    state = breaker.state.replace("_", " ") + (" (forced)" if breaker.forced_state else "")
    is_open = breaker.breaker_state != "closed"
    since = f"{breaker.changed_at:%Y-%m-%d %H:%M:%S}" if is_open and breaker.changed_at else "-"
    saturated = f"{breaker.saturated_for:.0f} s" if breaker.saturated_for else "-"
    failures = f"{breaker.window_failures} of {breaker.window_requests}" if breaker.window_requests else "-"
    reason = (breaker.open_reason if is_open else None) or "-"
    return [breaker.upstream, state, since, reason, next_probe(breaker), saturated, failures]


def next_probe(breaker: Breaker) -> str:
    """Return when a job probes the endpoint."""
    if breaker.forced_state or breaker.breaker_state == "closed":
        return "-"
    if breaker.breaker_state == "half_open":
        return f"runs: {breaker.probe_job_id}"
    return f"in {breaker.probe_in:.0f} s" if breaker.probe_in else "with the next turn"


def force(settings: Settings, name: str, state: Order | None) -> None:
    """Keep a breaker open or closed, or let it decide again. Raises ConfigurationError for an unknown endpoint."""
    with transaction(settings) as connection:
        known = {*known_breakers(connection, settings), *breakers.list_breakers(connection)}
        if name not in known:
            raise ConfigurationError(f"there is no endpoint {name!r}; known are: {', '.join(sorted(known)) or 'none'}")
        breakers.force(connection, name, state)
        audit.record(connection, ACTIONS[state], ORIGIN, target=name)
    click.echo(CONFIRMATIONS[state].format(name=name))


CONFIRMATIONS: Mapping[Order | None, str] = {
    "open": "{name} gets no more requests, until `sangha breakers auto {name}`. Turns that wait for it return.",
    "closed": "{name} gets requests whatever their results, until `sangha breakers auto {name}`.",
    None: "{name} gets requests as their results allow.",
}

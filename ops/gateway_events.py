"""`sangha gateway-events`: list the events of payment gateways, and apply one again."""

import click

from models.billing import gateway_events
from models.billing.gateway_events import EventState, GatewayEvent
from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from ops.database_connection import transaction
from ops.table import align_columns
from pipelines.billing import gateway_notices

HEADINGS = ("gateway", "event", "type", "state", "received", "error")


def list_events(settings: Settings, *, state: EventState | None, limit: int) -> None:
    """Print one line per event, the latest first."""
    with transaction(settings) as connection:
        events = gateway_events.list_events(connection, state=state, limit=limit)
    click.echo("\n".join(align_columns([HEADINGS, *map(event_row, events)])) if events else "No events.")


def event_row(event: GatewayEvent) -> list[object]:
    """Return the cells of an event's line."""
    received = f"{event.received_at:%Y-%m-%d %H:%M:%S}"
    return [event.gateway, event.event_id, event.type, event.state, received, event.error or ""]


def replay(settings: Settings, gateway: str, event_id: str) -> None:
    """Enqueue an event again. Raises ConfigurationError for one that is not there, or whose payload was deleted."""
    with transaction(settings) as connection:
        if gateway_notices.replay(connection, gateway, event_id) is None:
            stored = gateway_events.read(connection, gateway, event_id)
            reason = f"its payload was deleted after {gateway_events.PAYLOAD_DAYS} days" if stored else "not found"
            raise ConfigurationError(f"cannot replay {event_id} of {gateway}: {reason}")
    click.echo("queued")

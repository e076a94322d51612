"""Accept the events of gateways: each is stored once, with the job that applies it."""

from models.billing import gateway_events
from models.billing.gateway_events import GatewayEvent
from models.billing.payments import GatewayName
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Connection
from pipelines.billing.gateways.gateway import Notice


def accept(connection: Connection, gateway: GatewayName, notice: Notice, payload: str) -> str | None:
    """Store an event that was verified, and enqueue its job. Returns the job's id; None if the event was there before.

    Nudge the relay after the commit.
    """
    if not gateway_events.insert(connection, gateway, notice.event_id, notice.type, payload):
        return None
    return enqueue_event(connection, gateway, notice.event_id)


def replay(connection: Connection, gateway: str, event_id: str) -> GatewayEvent | None:
    """Apply an event again. Returns None if it does not exist, or its payload was deleted."""
    event = gateway_events.reopen(connection, gateway, event_id)
    if event is not None:
        enqueue_event(connection, event.gateway, event.event_id)
    return event


def enqueue_event(connection: Connection, gateway: GatewayName, event_id: str) -> str:
    """Enqueue the job that applies an event."""
    job = NewJob("gateway.event", PLATFORM_ACCOUNT, {"gateway": gateway, "event_id": event_id})
    enqueue(connection, job)
    return job.id

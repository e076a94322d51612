"""What gateways have sent by webhook, as they sent it, each event once.

received ─┬─► applied
          ├─► ignored     it is about nothing of ours, or of a type that changes nothing
          └─► failed      `sangha gateway-events replay` tries it again
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from models.billing.payments import GatewayName
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

EventState = Literal["received", "applied", "ignored", "failed"]

#: Days that the payloads are kept. They may name the customer; the rest of the row stays.
PAYLOAD_DAYS = 90


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """A row of `gateway_events`. `payload` is empty once it was pruned."""

    gateway: GatewayName
    event_id: str
    type: str
    payload: str
    state: EventState
    error: str | None
    received_at: datetime
    applied_at: datetime | None


COLUMNS = columns(GatewayEvent)

INSERT = """
INSERT INTO gateway_events (gateway, event_id, type, payload)
VALUES (%(gateway)s, %(event_id)s, %(type)s, %(payload)s)
ON CONFLICT (gateway, event_id) DO NOTHING
RETURNING event_id
"""


def insert(connection: Connection, gateway: GatewayName, event_id: str, event_type: str, payload: str) -> bool:
    """Store an event. Returns False if it is there already."""
    parameters = {"gateway": gateway, "event_id": event_id, "type": event_type, "payload": payload}
    return fetch_one(connection, INSERT, parameters) is not None


READ = f"SELECT {COLUMNS} FROM gateway_events WHERE gateway = %(gateway)s AND event_id = %(event_id)s"


def read(connection: Connection, gateway: str, event_id: str) -> GatewayEvent | None:
    """Return an event."""
    row = fetch_one(connection, READ, {"gateway": gateway, "event_id": event_id})
    return GatewayEvent(**row) if row else None


END = """
UPDATE gateway_events SET state = %(state)s, error = %(error)s, applied_at = now()
WHERE gateway = %(gateway)s AND event_id = %(event_id)s AND state IN ('received', 'failed')
"""


def end(connection: Connection, event: GatewayEvent, state: EventState, error: str | None = None) -> None:
    """Record what became of an event; one that was applied or ignored stays so."""
    parameters = {"gateway": event.gateway, "event_id": event.event_id, "state": state, "error": error}
    connection.execute(END, parameters)


LIST = f"""
SELECT {COLUMNS} FROM gateway_events
WHERE %(state)s::text IS NULL OR state = %(state)s
ORDER BY received_at DESC, event_id DESC LIMIT %(limit)s
"""


def list_events(connection: Connection, *, state: EventState | None = None, limit: int = 50) -> list[GatewayEvent]:
    """Return at most `limit` events of all gateways, the latest first."""
    return [GatewayEvent(**row) for row in fetch_all(connection, LIST, {"state": state, "limit": limit})]


REOPEN = f"""
UPDATE gateway_events SET state = 'received', error = NULL, applied_at = NULL
WHERE gateway = %(gateway)s AND event_id = %(event_id)s AND payload <> ''
RETURNING {COLUMNS}
"""


def reopen(connection: Connection, gateway: str, event_id: str) -> GatewayEvent | None:
    """Make an event one to apply again. Returns None if it does not exist, or its payload was pruned."""
    row = fetch_one(connection, REOPEN, {"gateway": gateway, "event_id": event_id})
    return GatewayEvent(**row) if row else None


PRUNE = """
UPDATE gateway_events SET payload = '' WHERE (gateway, event_id) IN (
    SELECT gateway, event_id FROM gateway_events
    WHERE payload <> '' AND received_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Empty a batch of payloads that are older than PAYLOAD_DAYS. Returns how many."""
    return connection.execute(PRUNE, {"days": PAYLOAD_DAYS, "batch": batch}).rowcount

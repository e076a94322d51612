"""`sangha gateway-events` on a real database."""

import pytest

from models.billing import gateway_events
from models.platform.database import Database
from tests.ops.commands import sangha


@pytest.fixture
def event(installation: Database) -> str:
    """The id of an event that could not be applied."""
    with installation.transaction() as connection:
        gateway_events.insert(connection, "stripe", "evt_1", "charge.updated", '{"id": "evt_1"}')
        stored = gateway_events.read(connection, "stripe", "evt_1")
        assert stored is not None
        gateway_events.end(connection, stored, "failed", "The gateway was down.")
    return "evt_1"


def jobs(database: Database) -> int:
    with database.connection() as connection:
        row = connection.execute("SELECT count(*) AS count FROM jobs WHERE kind = 'gateway.event'").fetchone()
    assert row is not None
    return int(row["count"])


def test_events_are_listed_with_their_state_and_error(event: str) -> None:
    line = sangha("gateway-events", "list", "--state", "failed").output.splitlines()[1]

    assert line.split()[:4] == ["stripe", event, "charge.updated", "failed"]
    assert line.endswith("The gateway was down.")
    assert sangha("gateway-events", "list", "--state", "applied").output == "No events.\n"


def test_replayed_event_is_applied_again(installation: Database, event: str) -> None:
    result = sangha("gateway-events", "replay", "stripe", event)

    assert (result.exit_code, result.output) == (0, "queued\n")
    assert jobs(installation) == 1
    with installation.connection() as connection:
        stored = gateway_events.read(connection, "stripe", event)
    assert stored is not None
    assert (stored.state, stored.error) == ("received", None)


def test_event_without_payload_cannot_be_replayed(installation: Database, event: str) -> None:
    # Given an event that is older than payloads are kept
    with installation.transaction() as connection:
        connection.execute("UPDATE gateway_events SET received_at = now() - interval '91 days'")
        assert gateway_events.prune(connection, 10) == 1
        assert gateway_events.prune(connection, 10) == 0

    result = sangha("gateway-events", "replay", "stripe", event)

    assert result.exit_code != 0
    assert "its payload was deleted after 90 days" in result.output
    assert "not found" in sangha("gateway-events", "replay", "test", event).output

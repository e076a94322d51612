"""An event of an account as an object of the API: the body of webhooks, and what `GET /v1/events` lists."""

from typing import Any

import orjson

from models.delivery.events import AccountEvent


def event_object(event: AccountEvent) -> dict[str, Any]:
    """Return the object of an event, in the shape of OpenAI's webhook events."""
    return {
        "id": event.id,
        "object": "event",
        "created_at": int(event.created_at.timestamp()),
        "type": event.event_type,
        "data": event.data,
    }


def event_body(event: AccountEvent) -> bytes:
    """Return the body of a webhook: the same bytes with each attempt."""
    return orjson.dumps(event_object(event))

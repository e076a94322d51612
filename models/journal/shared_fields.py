"""Store the large fields of a turn's response object once in its journal.

The first event has the object in full. A later event has null in place of each large field that equals the first one's,
and names these fields in the key after its sequence number:

    {"type":"response.queued","sequence_number":1,"shared":["tools"],"response":{…,"tools":null,…}}

Only journals have this form. The reader that sends events to clients puts the fields in again, which restores an event
byte for byte: null keeps a field's position, and orjson serialises what it has parsed to the same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from models.journal.events import Event

#: The schema version whose code and later ones read the form above.
SINCE = "0014"

SHARED = "shared"

_KEY = b'"shared":['

#: The fields that may be large and are the same in all events of a turn: its request has them.
CANDIDATES = ("instructions", "metadata", "stop", "text", "tool_choice", "tools")

#: Bytes of JSON from which a field is left out, and bytes of all such fields below which none is.
MIN_FIELD, MIN_TOTAL = 64, 512


def shared_fields(response: Mapping[str, Any]) -> list[str]:
    """Return the names of a response object's large fields; none for a small object."""
    sizes = {name: len(orjson.dumps(value)) for name in CANDIDATES if (value := response.get(name))}
    large = [name for name, size in sizes.items() if size >= MIN_FIELD]
    return large if sum(sizes[name] for name in large) >= MIN_TOTAL else []


def without_fields(payload: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Return an event's payload without these fields of its `response`, which equal those of the first event."""
    if not names:
        return payload
    return {SHARED: list(names), **payload, "response": {**payload["response"], **dict.fromkeys(names)}}


def is_incomplete(event: Event) -> bool:
    """Return whether an event lacks fields of the first one. No key or text in an event looks like its third key."""
    data = event.data
    return data.startswith(_KEY, data.find(b",", data.find(b",") + 1) + 1)


class SharedFields:
    """The fields of the response object in a journal's first event, as JSON."""

    __slots__ = ("_fields",)

    def __init__(self, first: Event) -> None:
        response: Mapping[str, Any] = orjson.loads(first.data).get("response", {})
        self._fields = {name: orjson.Fragment(orjson.dumps(value)) for name, value in response.items()}

    def complete(self, event: Event) -> Event:
        """Return the event as clients receive it, with all fields of its response object."""
        if not is_incomplete(event):
            return event
        payload = orjson.loads(event.data)
        payload["response"] |= {name: self._fields[name] for name in payload.pop(SHARED)}
        return replace(event, data=orjson.dumps(payload))


def complete_events(events: Iterable[Event], first: Event) -> list[Event]:
    """Return events of a journal as clients receive them; `first` is its first event."""
    fields = SharedFields(first)
    return [fields.complete(event) for event in events]

"""Store the large fields of a turn's response object once in its journal.

The first event has the object in full. A later event has null in place of each large field that equals the first one's,
and the key `shared` after its sequence number: the places of these fields in the first event, as offsets of bytes.

    {"type":"response.queued","sequence_number":1,"shared":{"tools":[412,66010]},"response":{…,"tools":null,…}}

Only journals have this form. The reader that sends events to clients copies the fields from the first event, which
restores a later one byte for byte: null keeps a field's position, and orjson serialises what it has parsed to the same
bytes. The first event is never rewritten, and neither it nor the fields are parsed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from models.journal.events import Event, event

#: The schema version whose code and later ones read the form above.
SINCE = "0014"

SHARED = "shared"

#: How the key begins, and the bytes of an event within which it does.
_KEY, _WITHIN = b'"shared":{', 128

#: The offsets of a field in it.
_PLACE = re.compile(rb"\[(\d+),(\d+)\]")

#: The fields that may be large and are the same in all events of a turn: its request has them.
CANDIDATES = ("instructions", "metadata", "stop", "text", "tool_choice", "tools")

#: Bytes of JSON from which a field is left out, and bytes of all such fields below which none is.
MIN_FIELD, MIN_TOTAL = 64, 512

#: Field → where its value begins and ends in the first event.
Places = Mapping[str, Sequence[int]]


def first_event(type_: str, response: Mapping[str, Any]) -> tuple[Event, Places]:
    """Serialise a journal's first event. Returns it with the places of large fields; a small object has none."""
    large = _large_fields(response)
    if not large:
        return event(0, type_, {"response": response}), {}
    fragments = {name: orjson.Fragment(json) for name, json in large.items()}
    first = event(0, type_, {"response": {**response, **fragments}})
    return first, {name: _place(first.data, name, json) for name, json in large.items()}


def _large_fields(response: Mapping[str, Any]) -> dict[str, bytes]:
    large = {}
    for name in CANDIDATES:
        if (value := response.get(name)) and len(json := orjson.dumps(value)) >= MIN_FIELD:
            large[name] = json
    return large if sum(map(len, large.values())) >= MIN_TOTAL else {}


def _place(data: bytes, name: str, json: bytes) -> list[int]:
    key = _key(name)
    start = data.index(key) + len(key)
    while not data.startswith(json, start):  # a longer pattern would make the search slow
        start = data.index(key, start) + len(key)
    return [start, start + len(json)]


def _key(name: str) -> bytes:
    return b'"%b":' % name.encode()


def without_fields(payload: Mapping[str, Any], places: Places) -> Mapping[str, Any]:
    """Return an event's payload without these fields of its `response`, which equal those of the first event."""
    if not places:
        return payload
    return {SHARED: places, **payload, "response": {**payload["response"], **dict.fromkeys(places)}}


def is_incomplete(event: Event) -> bool:
    """Return whether an event lacks fields of the first one."""
    data = event.data
    if (key := data.find(_KEY, 0, _WITHIN)) < 0:
        return False
    return key == data.index(b",", data.index(b",") + 1) + 1  # its third key


def completed_size(event: Event) -> int:
    """Return about how many bytes an event has with all fields of its response object."""
    if not is_incomplete(event):
        return len(event.data)
    start = event.data.index(_KEY)
    places = _PLACE.findall(event.data, start, event.data.index(b"}", start))
    return len(event.data) + sum(int(end) - int(begin) for begin, end in places)


class SharedFields:
    """The first event of a journal, whose fields complete the later ones."""

    __slots__ = ("_first",)

    def __init__(self, first: Event) -> None:
        self._first = first.data

    def complete(self, event: Event) -> Event:
        """Return the event as clients receive it, with all fields of its response object."""
        if not is_incomplete(event):
            return event
        payload = orjson.loads(event.data)
        places: Places = payload.pop(SHARED)
        payload["response"] |= {name: self._value(name, *place) for name, place in places.items()}
        return replace(event, data=orjson.dumps(payload))

    def _value(self, name: str, start: int, end: int) -> Any:
        """Return a field of the first event, by its name if it is not at this place.

        Redis may have the first event of a turn whose commit Postgres has lost, and which another version repeated.
        """
        key = _key(name)
        if self._first.startswith(key, start - len(key)) and self._first[end : end + 1] in (b",", b"}"):
            return orjson.Fragment(self._first[start:end])
        return orjson.loads(self._first)["response"][name]


def complete_events(events: Iterable[Event], first: Event) -> list[Event]:
    """Return events of a journal as clients receive them; `first` is its first event."""
    fields = SharedFields(first)
    return [fields.complete(event) for event in events]

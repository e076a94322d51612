"""Serialise and parse events."""

import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.jobs.jobs import ENDED
from models.journal.events import (
    ENDINGS,
    EXTENSION_EVENTS,
    REWOUND,
    Event,
    event,
    from_lines,
    to_lines,
    with_current_type,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('abc\n"\\é\0', max_size=4), inner, max_size=3),
    max_leaves=8,
)
TYPES = st.text("abcdefghijklmnopqrstuvwxyz._", min_size=1, max_size=30)
PAYLOADS = st.dictionaries(st.sampled_from(["delta", "item", "usage", "x"]), JSON, max_size=3)


@given(st.integers(0, 2**31), TYPES, PAYLOADS)
def test_an_event_is_one_line_of_json_that_begins_with_its_type_and_number(sequence, type_, payload):
    written = event(sequence, type_, payload)

    assert b"\n" not in written.data
    assert written.type == type_.encode()
    assert list(orjson.loads(written.data).items()) == [
        ("type", type_),
        ("sequence_number", sequence),
        *payload.items(),
    ]


@given(st.integers(0, 1000), st.lists(st.tuples(TYPES, PAYLOADS), min_size=1, max_size=5))
def test_events_survive_the_round_trip_through_lines(first, contents):
    events = [event(first + index, type_, payload) for index, (type_, payload) in enumerate(contents)]

    assert from_lines(first, to_lines(events)) == events


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_only_endings_end_a_journal(ending):
    assert event(3, ending.decode(), {}).ends
    assert not event(3, ending.decode() + ".not", {"kind": ending.decode()}).ends


def test_an_event_without_a_type_is_rejected():
    with pytest.raises(ValueError, match="subsection"):
        _ = Event(0, b"{}").type


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("sangha.job.completed", "sangha:job.completed"),
        ("sangha:job.completed", "sangha:job.completed"),
        ("response.completed", "response.completed"),
        ("sanghas.job", "sanghas.job"),
    ],
)
def test_extension_events_of_an_earlier_version_are_read_under_their_present_name(type_, expected):
    stored = event(7, type_, {"text": 'of {"type":"sangha.job.completed"}'})

    assert with_current_type(stored.data) == event(7, expected, {"text": 'of {"type":"sangha.job.completed"}'}).data
    assert from_lines(7, stored.data) == [Event(7, with_current_type(stored.data))]


def test_extension_events_are_described_completely():
    root = Path(__file__).parents[3]
    sources = [path for folder in ("models", "pipelines", "tasks", "web") for path in (root / folder).rglob("*.py")]
    texts = [path.read_text() for path in sources if path != root / "models/journal/events.py"]
    literals = {name for text in texts for name in re.findall(r"[\"'](sangha:[a-z_]+\.[a-z_]+)[\"']", text)}
    composed = {f"sangha:job.{state}" for text in texts if "sangha:job.{state}" in text for state in ENDED - {"dead"}}

    assert literals | composed | {REWOUND.decode(), "sangha:job.dead"} == set(EXTENSION_EVENTS)
    assert {name.decode() for name in ENDINGS if name.startswith(b"sangha:")} <= set(EXTENSION_EVENTS)

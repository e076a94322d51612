"""Large fields that a journal stores once: clients receive the same bytes as if each event carried them."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.journal.events import Event, event
from models.journal.shared_fields import (
    CANDIDATES,
    MIN_FIELD,
    MIN_TOTAL,
    SharedFields,
    complete_events,
    is_incomplete,
    shared_fields,
    without_fields,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("shared"), inner, max_size=3),
    max_leaves=8,
)
RESPONSES = st.dictionaries(st.sampled_from([*CANDIDATES, "status", "output", "shared", "id"]) | TEXT, JSON, max_size=8)
OTHERS = st.dictionaries(st.sampled_from(["job_id", "item", "delta"]), JSON, max_size=2)

LARGE = {"type": "function", "name": "f", "description": "x" * MIN_TOTAL}


@given(first=RESPONSES, later=RESPONSES, others=OTHERS, sequence=st.integers(1, 2**31), data=st.data())
def test_an_event_without_shared_fields_is_completed_to_the_bytes_of_the_whole_event(
    first, later, others, sequence, data
):
    # Given a later event with some fields of the first one, at any place in its response
    names = data.draw(st.lists(st.sampled_from(sorted(first)), unique=True) if first else st.just([]))
    fields = data.draw(st.permutations([*{**later, **{name: first[name] for name in names}}.items()]))
    payload = {**others, "response": dict(fields)}
    # When these fields are left out of it
    stored = event(sequence, "response.completed", without_fields(payload, names))
    # Then it is completed to what it would be otherwise
    created = event(0, "response.created", {"response": first})
    assert is_incomplete(stored) == bool(names)
    assert complete_events([created, stored], created) == [
        created,
        event(sequence, "response.completed", payload),
    ]


@given(st.dictionaries(st.sampled_from(["response", "text", "delta"]), JSON | RESPONSES, max_size=3), TEXT)
def test_a_whole_event_is_never_taken_for_an_incomplete_one(payload, type_):
    assert not is_incomplete(event(3, type_.replace(",", ""), {"text": '"shared":["tools"]', **payload}))


@pytest.mark.parametrize("data", [b"{}", b'{"type":"a"}', b'{"type":"a","sequence_number":1}'])
def test_an_event_without_a_payload_is_whole(data):
    assert not is_incomplete(Event(1, data))


def test_only_large_fields_of_a_large_object_are_shared():
    assert shared_fields({"id": "resp_1", "tools": [LARGE], "text": {}, "metadata": {"a": "b"}}) == ["tools"]
    assert shared_fields({"tools": [LARGE], "instructions": "x" * MIN_FIELD}) == ["instructions", "tools"]


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"instructions": None, "tools": [], "output": ["x" * 10_000]},
        {"instructions": "x" * (MIN_TOTAL - 3)},
        dict.fromkeys(CANDIDATES, "x" * (MIN_FIELD - 3)),
    ],
)
def test_a_small_object_is_stored_whole(response):
    assert shared_fields(response) == []
    assert without_fields({"response": response}, []) == {"response": response}


def test_an_event_keeps_its_tokens_and_what_it_ends():
    created = event(0, "response.created", {"response": {"tools": [LARGE]}})
    stored = event(1, "response.completed", without_fields({"response": {"tools": [LARGE]}}, ["tools"]), 7)

    completed = SharedFields(created).complete(stored)

    assert (completed.sequence, completed.type, completed.tokens, completed.ends) == (1, stored.type, 7, True)
    assert orjson.loads(completed.data)["response"] == {"tools": [LARGE]}
    assert len(stored.data) < 150


def test_a_later_versions_field_is_completed_too():
    created = event(0, "response.created", {"response": {"a_new_field": ["x"]}})
    stored = event(1, "response.queued", {"shared": ["a_new_field"], "response": {"a_new_field": None}})

    assert SharedFields(created).complete(stored) == event(1, "response.queued", {"response": {"a_new_field": ["x"]}})

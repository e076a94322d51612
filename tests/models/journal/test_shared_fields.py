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
    first_event,
    is_incomplete,
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


LENGTHS = st.sampled_from([0, 60, 70, 200, 600, 5000])


@given(
    first=RESPONSES,
    lengths=st.dictionaries(st.sampled_from(CANDIDATES), LENGTHS, max_size=4),
    later=RESPONSES,
    others=OTHERS,
    sequence=st.integers(1, 2**31),
    data=st.data(),
)
def test_an_event_without_shared_fields_is_completed_to_the_bytes_of_the_whole_event(
    first, lengths, later, others, sequence, data
):
    # Given a first event, some of whose fields are large, and a later one with these at any place in its response
    first |= {name: [{name: "ü" * length}, first.get(name)] for name, length in lengths.items()}
    created, places = first_event("response.created", first)
    fields = data.draw(st.permutations([*{**later, **{name: first[name] for name in places}}.items()]))
    payload = {**others, "response": dict(fields)}
    # When the large fields are left out of it
    stored = event(sequence, "response.completed", without_fields(payload, places))
    # Then it is completed to what it would be otherwise
    assert created == event(0, "response.created", {"response": first})
    assert is_incomplete(stored) == bool(places)
    assert complete_events([created, stored], created) == [created, event(sequence, "response.completed", payload)]


def test_a_field_whose_value_occurs_elsewhere_too_is_completed():
    response = {"metadata": {"text": [LARGE], "tools": [LARGE]}, "text": [LARGE], "tools": [LARGE], "output": [LARGE]}
    created, places = first_event("response.created", response)
    stored = event(1, "response.queued", without_fields({"response": response}, places))

    assert SharedFields(created).complete(stored) == event(1, "response.queued", {"response": response})


@pytest.mark.parametrize("another_field", [{"a": 1}, {"a": "x" * 5000}, {"metadata": {"tools": [LARGE]}}])
def test_a_field_is_found_by_its_name_in_a_first_event_that_is_built_differently(another_field):
    response = {"id": "resp_1", "tools": [LARGE]}
    stored = event(1, "response.queued", without_fields({"response": response}, first_event("a", response)[1]))
    other = event(0, "response.created", {"response": {**another_field, **response}})

    assert SharedFields(other).complete(stored) == event(1, "response.queued", {"response": response})


@given(st.dictionaries(st.sampled_from(["response", "text", "delta"]), JSON | RESPONSES, max_size=3), TEXT)
def test_a_whole_event_is_never_taken_for_an_incomplete_one(payload, type_):
    for value in ('"shared":{"tools":[1,2]}', {"shared": {"tools": [1, 2]}}):
        assert not is_incomplete(event(3, type_.replace(",", ""), {"text": value, **payload}))


@pytest.mark.parametrize("data", [b"{}", b'{"type":"a"}', b'{"type":"a","sequence_number":1}'])
def test_an_event_without_a_payload_is_whole(data):
    assert not is_incomplete(Event(1, data))


def test_only_large_fields_of_a_large_object_are_shared():
    for response, expected in (
        ({"id": "resp_1", "tools": [LARGE], "text": {}, "metadata": {"a": "b"}}, ["tools"]),
        ({"tools": [LARGE], "instructions": "x" * MIN_FIELD}, ["instructions", "tools"]),
    ):
        assert list(first_event("response.created", response)[1]) == expected


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
    assert first_event("response.created", response)[1] == {}
    assert without_fields({"response": response}, {}) == {"response": response}


def test_an_event_keeps_its_tokens_and_what_it_ends():
    created, places = first_event("response.created", {"tools": [LARGE]})
    stored = event(1, "response.completed", without_fields({"response": {"tools": [LARGE]}}, places), 7)

    completed = SharedFields(created).complete(stored)

    assert (completed.sequence, completed.type, completed.tokens, completed.ends) == (1, stored.type, 7, True)
    assert orjson.loads(completed.data)["response"] == {"tools": [LARGE]}
    assert len(stored.data) < 150


def test_a_later_versions_field_is_completed_too():
    created = event(0, "response.created", {"response": {"a_new_field": ["x"]}})
    start = created.data.index(b"[")
    places = {"a_new_field": [start, start + 5]}
    stored = event(1, "response.queued", {"shared": places, "response": {"a_new_field": None}})

    assert SharedFields(created).complete(stored) == event(1, "response.queued", {"response": {"a_new_field": ["x"]}})

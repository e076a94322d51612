"""The compressed archive of an ended job has the events of its chunks, byte for byte."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.journal.archive import Chunk, pack, unpack
from models.journal.events import Event, event, to_lines

values = st.recursive(
    st.none() | st.text() | st.integers(-(2**53), 2**53),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
payloads = st.dictionaries(st.sampled_from(["delta", "response", "shared"]), values)


@st.composite
def journals(draw) -> list[list[Event]]:
    """The events of the chunks of a journal."""
    bodies = draw(st.lists(st.tuples(payloads, st.integers(0, 5)), min_size=1, max_size=30))
    events = [event(number, "response.a", body, tokens) for number, (body, tokens) in enumerate(bodies)]
    cuts = sorted(draw(st.sets(st.integers(1, len(events)))) | {0, len(events)})
    return [events[start:end] for start, end in pairwise(cuts)]


def chunk_of(events: list[Event]) -> Chunk:
    tokens = sum(each.tokens for each in events)
    return Chunk(events[0].sequence, events[-1].sequence, tokens, to_lines(events).decode())


@given(journals())
def test_unpacking_restores_what_was_packed(chunks):
    packed = pack([chunk_of(events) for events in chunks])

    events = [each for events in chunks for each in events]
    unpacked = [(each.sequence, each.data) for each in unpack(packed.data)]
    assert unpacked == [(each.sequence, each.data) for each in events]
    assert packed.last_sequence == events[-1].sequence
    assert packed.tokens == sum(each.tokens for each in events)


def test_numbers_are_those_that_the_events_state():
    """A journal whose archive lacks events is not renumbered."""
    chunks = [chunk_of([event(0, "response.a", {})]), chunk_of([event(7, "response.b", {})])]

    assert [each.sequence for each in unpack(pack(chunks).data)] == [0, 7]


def test_events_of_an_earlier_version_have_the_present_names():
    old = event(0, "sangha.job.progress", {"job_id": "job_1"})

    (unpacked,) = unpack(pack([chunk_of([old])]).data)

    assert unpacked.type == b"sangha:job.progress"


def test_an_event_without_a_number_is_rejected():
    with pytest.raises(ValueError, match="no sequence number"):
        unpack(pack([Chunk(0, 0, 0, '{"type":"a"}')]).data)

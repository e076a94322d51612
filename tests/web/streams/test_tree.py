"""Merge the journals of a tree: each in its order, from its announcement or a cursor, to the end of the root."""

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.journal.events import event
from web.streams import tree
from web.streams.tree import TreeStream, decode_cursor, encode_cursor

ROOT, CHILD, OTHER = (f"job_{number:032x}" for number in range(3))


def journal(*types, announces=()):
    """Return a journal of events of these types, after events that announce jobs."""
    started = [("sangha:agent.started", {"item_id": "mcp_1", "job_id": job_id}) for job_id in announces]
    return [
        event(number, type_, payload) for number, (type_, payload) in enumerate([*started, *((t, {}) for t in types)])
    ]


def follower(journals, missing=()):
    """Return a function that follows these journals. A missing one is there only at the second time."""
    missing = set(missing)

    async def follow(job_id, after):
        if job_id in missing:
            missing.discard(job_id)
            return
        for each in journals[job_id]:
            await asyncio.sleep(0)
            if each.sequence > after:
                yield [each]

    return follow


def read(journals, positions=None, missing=()):
    """Return cursor, job and sequence number of each event of the stream."""

    async def collect():
        stream = TreeStream(ROOT, follower(journals, missing), positions or {ROOT: -1})
        return [frame async for frame in stream.frames()]

    events = []
    for frame in b"".join(asyncio.run(collect())).split(b"\n\n")[:-1]:
        id_, _, data = frame.split(b"\n")
        payload = orjson.loads(data.removeprefix(b"data: "))
        events.append((id_.removeprefix(b"id: ").decode(), payload["job"], payload["sequence_number"]))
    return events


JOURNALS = {
    ROOT: journal("a", "b", "response.completed", announces=(CHILD, OTHER)),
    CHILD: journal("a", "sangha:job.completed"),
    OTHER: journal("a", "a", "sangha:job.completed"),
}


def numbers(events, job_id):
    return [number for _, job, number in events if job == job_id]


def test_each_journal_is_whole_and_in_order():
    events = read(JOURNALS)

    assert {job_id: numbers(events, job_id) for job_id in JOURNALS} == {
        ROOT: [0, 1, 2, 3, 4],
        CHILD: [0, 1],
        OTHER: [0, 1, 2],
    }


@pytest.mark.parametrize("after", range(9))
def test_every_event_is_a_point_to_resume_from(after):
    events = read(JOURNALS)

    resumed = read(JOURNALS, decode_cursor(events[after][0]))

    both = [*events[: after + 1], *resumed]
    assert {job_id: numbers(both, job_id) for job_id in JOURNALS} == {
        job_id: numbers(events, job_id) for job_id in JOURNALS
    }


def test_a_job_that_does_not_exist_yet_is_looked_for_again(monkeypatch):
    monkeypatch.setattr(tree, "RETRY_AFTER", 0.0)
    waiting = {**JOURNALS, ROOT: journal("a", *["b"] * 50, "response.completed", announces=(CHILD,))}

    events = read(waiting, missing=[CHILD])

    assert numbers(events, CHILD) == [0, 1]


def test_more_jobs_than_are_followed_at_a_time_wait(monkeypatch):
    monkeypatch.setattr(tree, "MAX_JOBS", 2)

    events = read(JOURNALS)

    assert numbers(events, OTHER) == [0, 1, 2]


def test_the_stream_ends_if_the_roots_journal_does_without_an_end():
    assert read({ROOT: journal("a")}) == [(f"{ROOT}.0", ROOT, 0)]


@given(st.dictionaries(st.integers(0, 2**128 - 1), st.integers(-1, 10**8), min_size=1, max_size=100))
def test_a_cursor_is_decoded_to_what_was_encoded(positions):
    named = {f"job_{number:032x}": position for number, position in positions.items()}

    assert decode_cursor(encode_cursor(named)) == named


@pytest.mark.parametrize("text", ["", "7", f"{ROOT}", f"{ROOT}.x", f"{ROOT}.1~", "job_../x.1", f"{ROOT}.{'1' * 10}"])
def test_another_text_is_not_a_cursor(text):
    with pytest.raises(ValueError, match=r"not a position|invalid literal"):
        decode_cursor(text)

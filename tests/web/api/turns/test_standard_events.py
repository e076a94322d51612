"""Streams for clients that know OpenAI's types only: nothing else, and no text that is taken back."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.journal.events import Event, event
from web.api.turns.standard_events import Restart, StandardEvents, find_last_restart

RESPONSE = {"id": "resp_1", "status": "in_progress"}
DELTA, REWOUND, RESTARTED = "response.output_text.delta", "sangha:journal.rewound", "sangha:answer.restarted"
ANSWER = ["response.output_item.added", "response.content_part.added"]
OPENING = ["response.created", "response.queued", "response.in_progress", "sangha:engine.started", *ANSWER]


def journal(*types: str, first: int = 0, **payload: Any) -> list[Event]:
    """Return events of these types, with consecutive numbers."""
    return [event(first + index, type_, {"response": RESPONSE, **payload}) for index, type_ in enumerate(types)]


def types(events: Sequence[Event]) -> list[str]:
    return [each.type.decode() for each in events]


def parsed(each: Event) -> Mapping[str, Any]:
    return orjson.loads(each.data)


def test_events_of_other_types_are_left_out_and_keep_their_number():
    standard = StandardEvents("resp_1")

    delivered = standard.convert(journal(*OPENING, DELTA, "response.completed"))

    assert types(delivered) == [*OPENING[:3], *ANSWER, DELTA, "response.completed"]
    assert [each.sequence for each in delivered] == [0, 1, 2, 4, 5, 6, 7]
    assert standard.ended


def test_a_cancelled_turn_ends_as_incomplete_with_its_response():
    standard = StandardEvents("resp_1")
    response = {**RESPONSE, "status": "cancelled"}

    (_, last) = standard.convert(journal("response.created", "sangha:job.cancelled", response=response))

    assert parsed(last) == {"type": "response.incomplete", "sequence_number": 1, "response": response}
    assert standard.ended
    assert last.ends


def test_a_turn_that_ends_without_a_response_ends_with_its_error():
    standard = StandardEvents("resp_1")
    dead = event(7, "sangha:job.dead", {"job_id": "job_1", "error": {"code": "crashed", "message": "Workers died."}})

    (last,) = standard.convert([dead])

    assert (parsed(last)["type"], parsed(last)["code"], parsed(last)["message"]) == (
        "error",
        "crashed",
        "Workers died.",
    )
    assert parsed(last)["error"]["message"] == "Workers died."


@pytest.mark.parametrize("after", [-1, 6], ids=["from the beginning", "resumed"])
def test_a_restart_after_delivered_text_ends_the_stream_with_an_error(after: int):
    standard = StandardEvents("resp_1", after)
    if after < 0:
        standard.convert(journal(*OPENING, DELTA))

    delivered = standard.convert(journal(RESTARTED, DELTA, "response.completed", first=7))

    assert types(delivered) == ["error"]
    assert parsed(delivered[0])["code"] == "answer_restarted"
    assert standard.ended


def test_a_restart_before_any_text_is_not_noticed():
    standard = StandardEvents("resp_1")
    standard.convert(journal(*OPENING))

    assert types(standard.convert(journal(RESTARTED, DELTA, first=6))) == [DELTA]


def test_text_that_was_begun_again_is_left_out_of_a_replay():
    standard = StandardEvents("resp_1")

    delivered = standard.convert(journal(*OPENING, DELTA, RESTARTED, DELTA, RESTARTED, DELTA, "response.completed"))

    assert [each.sequence for each in delivered if each.type == DELTA.encode()] == [10]
    assert types(delivered)[-1] == "response.completed"


def test_a_rewind_that_takes_back_a_part_of_the_answer_ends_the_stream_with_an_error():
    standard = StandardEvents("resp_1")
    standard.convert(journal(*OPENING, DELTA))

    delivered = standard.convert(journal(REWOUND, DELTA, first=6))

    assert types(delivered) == ["error"]


def test_a_client_resumes_after_the_restart_that_the_error_names():
    standard = StandardEvents("resp_1")
    standard.convert(journal(*OPENING, DELTA))
    (error,) = standard.convert(journal(RESTARTED, first=7))

    rest = StandardEvents("resp_1", error.sequence).convert(journal(DELTA, "response.completed", first=8))

    assert "GET /v1/responses/resp_1?stream=true&starting_after=7" in parsed(error)["message"]
    assert types(rest) == [DELTA, "response.completed"]


def test_the_error_of_a_rewind_names_no_number_to_resume_after():
    (error,) = StandardEvents("resp_1", 18).convert(journal(REWOUND, first=2))

    assert "GET /v1/responses/resp_1?stream=true." in parsed(error)["message"]


def test_a_resumed_stream_that_is_sent_back_to_a_rewind_ends_with_an_error():
    delivered = StandardEvents("resp_1", 18).convert(journal(REWOUND, "response.in_progress", DELTA, first=2))

    assert [parsed(each)["code"] for each in delivered] == ["answer_restarted"]


def test_a_rewind_that_takes_back_nothing_of_the_answer_is_not_noticed():
    standard = StandardEvents("resp_1")
    standard.convert(journal(*OPENING[:4]))

    delivered = standard.convert(journal(REWOUND, "response.in_progress", "sangha:engine.started", *ANSWER, first=2))

    assert types(delivered) == ANSWER
    assert [each.sequence for each in delivered] == [5, 6]


@given(cuts=st.sets(st.integers(1, 8)), restart_after=st.integers(0, 2), after=st.integers(-1, 6))
def test_a_stream_has_only_types_of_openai_and_rising_numbers(cuts: set[int], restart_after: int, after: int):
    # Given a journal with a restart, cut into batches anywhere, and followed from anywhere
    events = journal(*OPENING, *[DELTA] * restart_after, RESTARTED, DELTA, "response.completed")
    standard, delivered = StandardEvents("resp_1", after), []
    bounds = sorted({0, *(cut for cut in cuts if cut < len(events)), len(events)})
    batches = [events[begin:end] for begin, end in itertools.pairwise(bounds)]

    # When it is converted
    for batch in batches:
        if not standard.ended:
            delivered += standard.convert([each for each in batch if each.sequence > after])

    # Then the types are OpenAI's, the numbers rise, and the last event ends the stream
    assert all(type_.startswith("response.") or type_ == "error" for type_ in types(delivered))
    assert [each.sequence for each in delivered] == sorted({each.sequence for each in delivered})
    assert standard.ended
    assert delivered[-1].type in (b"response.completed", b"error")


def item(first: int, type_: str, kind: str) -> Event:
    return event(first, type_, {"output_index": 0, "item": {"type": kind}})


def test_reasoning_that_is_begun_again_is_left_out_with_its_items():
    # Given a journal with a compaction, reasoning and a message, which all but the compaction begin again
    first = [
        *journal("response.created", "response.in_progress"),
        item(2, "response.output_item.added", "compaction"), item(3, "response.output_item.done", "compaction"),
        item(4, "response.output_item.added", "reasoning"), *journal("response.reasoning_text.delta", first=5),
        item(6, "response.output_item.done", "reasoning"), item(7, "response.output_item.added", "message"),
        *journal(DELTA, RESTARTED, first=8),
    ]  # fmt: skip
    again = [item(10, "response.output_item.added", "reasoning"), *journal("response.reasoning_text.delta", first=11)]
    # When all is read at once
    delivered = StandardEvents("resp_1").convert([*first, *again])
    # Then there is one of each
    assert [each.sequence for each in delivered] == [0, 1, 2, 3, 10, 11]


def test_a_restart_after_delivered_reasoning_ends_the_stream():
    standard = StandardEvents("resp_1")
    standard.convert([*journal("response.created", "response.in_progress"), item(2, ANSWER[0], "reasoning")])

    (last,) = standard.convert(journal(RESTARTED, first=3))

    assert (parsed(last)["type"], parsed(last)["code"], standard.ended) == ("error", "answer_restarted", True)


async def pages_of(events: Sequence[Event], size: int) -> AsyncIterator[Sequence[Event]]:
    for begin in range(0, len(events), size):
        yield events[begin : begin + size]


@given(restarts=st.lists(st.integers(0, 3), min_size=1, max_size=3), page=st.integers(1, 5))
def test_a_stream_that_knows_the_last_restart_has_only_the_answer_after_it(restarts: list[int], page: int):
    # Given a journal with restarts, each after some text, in pages of any size
    attempts = [type_ for texts in restarts for type_ in (*[DELTA] * texts, RESTARTED)]
    events = journal(*OPENING, *attempts, DELTA, "response.completed")

    # When it is read by a client that has received nothing
    restart = asyncio.run(find_last_restart(pages_of(events, page)))
    standard = StandardEvents("resp_1", restart=restart)
    delivered = [each for one in events for each in standard.convert([one])]

    # Then the text before the last restart is left out
    assert types(delivered) == [*OPENING[:3], *ANSWER, DELTA, "response.completed"]


def test_a_rewind_below_the_known_restart_brings_text_that_is_delivered():
    # Given a stream from a restart on
    standard = StandardEvents("resp_1", restart=Restart(8, with_items=True))
    standard.convert(journal("response.created", "response.queued", "response.in_progress"))
    standard.convert([*journal(*ANSWER, *[DELTA] * 3, first=3)])

    # When the journal is rewound to before it
    delivered = standard.convert(journal(REWOUND, "response.in_progress", *ANSWER, DELTA, first=3))

    # Then the events after the rewind are those of another answer
    assert types(delivered) == [*ANSWER, DELTA]


def test_a_restart_in_a_later_generation_keeps_the_events_before_it():
    # Given two generations with reasoning, of which the second was restarted
    reasoning, item = "response.reasoning_text.delta", {"item": {"type": "reasoning"}}
    first = [*journal(*OPENING[:4]), *journal("response.output_item.added", reasoning, DELTA, first=4, **item)]
    second = journal("sangha:engine.started", "response.output_item.added", reasoning, DELTA, first=7, **item)
    restart = event(11, RESTARTED, {"discarded_tokens": 2, "since": 7})
    rest = journal("response.output_item.added", reasoning, DELTA, "response.completed", first=12, **item)

    # When a client reads all of it
    delivered = StandardEvents("resp_1").convert([*first, *second, restart, *rest])

    # Then only what was generated since is left out
    assert [each.sequence for each in delivered] == [0, 1, 2, 4, 5, 6, 12, 13, 14, 15]

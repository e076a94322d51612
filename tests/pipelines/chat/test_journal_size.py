"""A turn's journal has large fields of the response once, and clients receive whole responses."""

import re

import orjson
import pytest

from models.accounts.plans import UNLIMITED
from models.jobs.cancellation import cancel
from models.journal import journal
from models.journal.archive import read_archive
from models.journal.shared_fields import complete_events, is_incomplete
from models.platform.migration_files import FIRST_VERSION
from pipelines.chat import turn
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.response_objects import response_object
from pipelines.chat.start_turn import start_turn_in_transaction
from tests.pipelines.chat.conftest import REQUEST

TOOLS = [
    {"type": "function", "name": f"tool_{number}", "description": "x" * 1000, "parameters": {}, "strict": True}
    for number in range(64)
]
TEXT = {"format": {"type": "json_schema", "name": "n", "schema": {"maximum": 1e300, "title": "ü" * 300}}}
LARGE = {"tools": TOOLS, "instructions": "Be kind. " * 100, "text": TEXT, "metadata": {"topic": "x" * 500}}

SIZE = len(orjson.dumps(LARGE))


def archived(harness, started):
    with harness.database.connection() as connection:
        return read_archive(connection, started.response.job_id).events


def streamed(harness, started):
    assert harness.writer.drain()
    return journal.read_events(harness.client, started.response.job_id)


def as_clients_receive(events):
    return [orjson.loads(event.data) for event in complete_events(events, events[0])]


def run_turn(harness, engine, started):
    """Run a turn to its end; opening events are in Redis, as the web process puts them there."""
    journal.append(harness.client, journal.Claim(started.response.job_id), started.opening_events)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))


def test_redis_and_the_archive_have_large_fields_once(harness, fake_engine):
    started = harness.start(**LARGE)

    run_turn(harness, fake_engine("a ", "b"), started)

    for events in (streamed(harness, started), archived(harness, started)):
        assert SIZE < sum(len(event.data) for event in events) < SIZE + 6000
        assert [event.type for event in events if is_incomplete(event)] == [
            b"response.queued",
            b"response.in_progress",
            b"response.completed",
        ]


def test_clients_receive_the_events_of_a_journal_that_repeats_the_fields(harness, fake_engine):
    # Given the same turn, with and without shared fields
    turns = [harness.start(shares_fields=shares, **LARGE) for shares in (True, False)]

    for started in turns:
        run_turn(harness, fake_engine("a ", "b"), started)

    # Then clients receive the same events, but for the ids
    shared, repeated = (
        [normalise(event.data, started) for event in complete_events(events, events[0])]
        for started in turns
        for events in [streamed(harness, started)]
    )
    assert shared == repeated
    assert not any(map(is_incomplete, streamed(harness, turns[1])))
    stored = response_object(harness.stored_response(turns[0]))
    assert as_clients_receive(streamed(harness, turns[0]))[-1]["response"] == stored


def normalise(data, started):
    response = started.response
    for part in (response.id, response.id.removeprefix("resp_"), response.job_id):
        data = data.replace(part.encode(), b"-")
    return re.sub(rb'"(created_at|completed_at|first_token_seconds)":[\d.]+', b"", data)


@pytest.mark.parametrize("state", ["cancelled", "failed", "dead"])
def test_other_endings_have_large_fields_once_too(harness, fake_engine, state):
    started = harness.start(**LARGE)
    attempt = harness.attempt(started)

    harness.settle(attempt, turn.end(attempt, state, {"code": "x", "message": "y"}))

    events = archived(harness, started)
    assert len(events[-1].data) < 3000
    last = as_clients_receive(events)[-1]
    assert last["response"]["status"] == {"dead": "failed"}.get(state, state)
    assert last["response"]["tools"] == TOOLS
    assert ("job_id" in last, "shared" in last) == (state == "cancelled", False)


def test_the_end_of_a_turn_that_never_ran_has_large_fields_once_too(harness):
    started = harness.start(**LARGE)
    with harness.database.transaction() as connection:
        cancel(connection, started.response.job_id, harness.caller.account_id)

    events = archived(harness, started)
    assert [len(event.data) < 3000 for event in events] == [False, True, True]
    cancelled = as_clients_receive(events)[-1]
    assert (cancelled["type"], cancelled["job_id"]) == ("sangha:job.cancelled", started.response.job_id)
    assert cancelled["response"] == {**as_clients_receive(events)[0]["response"], "status": "cancelled"}


def test_a_later_attempt_of_another_version_continues_either_form(harness, fake_engine):
    # Given a turn that was accepted before all processes read shared fields, and one after
    for shares in (False, True):
        started = harness.start(shares_fields=shares, **LARGE)
        attempt = harness.attempt(started)
        attempt.journal.write("response.in_progress", {"response": response_object(started.response, "in_progress")})
        harness.crash_worker(attempt)
        # When the present version continues it
        second = harness.attempt(started)
        harness.settle(second, turn.run(fake_engine("a ", "b"), second))
        # Then clients receive whole events of both
        events = as_clients_receive(archived(harness, started))
        assert [event["response"]["tools"] for event in events if "response" in event] == [TOOLS] * 4


def test_small_turns_are_stored_whole(harness, fake_engine):
    started = harness.start(instructions="Be kind.", metadata={"a": "b"})

    run_turn(harness, fake_engine("a ", "b"), started)

    assert not any(map(is_incomplete, archived(harness, started)))


@pytest.mark.parametrize(("oldest", "shares"), [(FIRST_VERSION, False), ("0014", True)])
def test_a_firing_shares_fields_once_no_earlier_version_may_read_its_journal(harness, oldest, shares):
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    with harness.database.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute("UPDATE schema_compatibility SET oldest_code = %s", (oldest,))
        fired = start_turn_in_transaction(
            connection, harness.caller, NewTurn({**REQUEST, **LARGE}, [message]), UNLIMITED
        )

    assert is_incomplete(fired.opening_events[1]) == shares

"""Given a new turn, when it is accepted, then it, its job and its first events are there, or nothing is."""

import orjson
import pytest

from models.journal.archive import read_archive
from models.platform.errors import InvalidRequest, NotFound
from models.platform.ids import new_id
from models.turns import conversations


def test_a_turn_is_there_with_its_job_and_its_opening(harness):
    started = harness.start("one", "two", instructions="Be kind.")

    stored = harness.stored(started)
    assert (stored.status, stored.job_state, len(stored.input)) == ("queued", "queued", 2)
    assert stored.request["instructions"] == "Be kind."
    with harness.database.connection() as connection:
        archived = read_archive(connection, stored.job_id).events
    assert [event.data for event in archived] == [event.data for event in started.opening_events]
    assert [event.type for event in archived] == [b"response.created", b"response.queued"]
    assert orjson.loads(archived[0].data)["response"]["id"] == stored.id


def test_a_turn_of_its_own_begins_a_thread_and_a_chain_keeps_it(harness):
    first = harness.start()
    second = harness.start(previous=first.response.id)
    third = harness.start(previous=second.response.id)

    assert {turn.response.thread for turn in (first, second, third)} == {first.response.id}


def test_a_conversation_is_its_turns_thread(harness):
    conversation = new_id("conv")
    with harness.database.transaction() as connection:
        conversations.create(connection, conversation, harness.caller.account_id, {})

    assert harness.start(conversation=conversation).response.thread == conversation


def test_what_the_account_does_not_have_is_refused_and_leaves_nothing(harness):
    with pytest.raises(NotFound):
        harness.start(conversation=new_id("conv"))
    with pytest.raises(InvalidRequest) as refusal:
        harness.start(previous=new_id("resp"))

    assert refusal.value.code == "previous_response_not_found"
    with harness.database.connection() as connection:
        rows = connection.execute("SELECT 1 FROM jobs WHERE account_id = %s", (harness.caller.account_id,)).fetchall()
    assert rows == []

"""A turn is accepted with its job and its first events, or not at all."""

import orjson
import pytest

from models.journal.archive import read_archive
from models.platform.errors import InvalidRequest, NotFound
from models.platform.ids import new_id
from models.turns import conversations


def test_a_turn_is_stored_with_its_job_and_opening_events(harness):
    started = harness.start("one", "two", instructions="Be kind.")

    stored = harness.stored_response(started)
    assert (stored.status, stored.job_state, len(stored.input)) == ("queued", "queued", 2)
    assert stored.request["instructions"] == "Be kind."
    with harness.database.connection() as connection:
        archived = read_archive(connection, stored.job_id).events
    assert [event.data for event in archived] == [event.data for event in started.opening_events]
    assert [event.type for event in archived] == [b"response.created", b"response.queued"]
    assert orjson.loads(archived[0].data)["response"]["id"] == stored.id


def test_a_first_turn_begins_a_thread_that_its_chain_continues(harness):
    first = harness.start()
    second = harness.start(previous=first.response.id)
    third = harness.start(previous=second.response.id)

    assert {turn.response.thread for turn in (first, second, third)} == {first.response.id}


def test_the_thread_of_a_conversations_turn_is_the_conversation(harness):
    conversation = new_id("conv")
    with harness.database.transaction() as connection:
        conversations.create(connection, conversation, harness.caller.account_id, {})

    assert harness.start(conversation=conversation).response.thread == conversation


def test_an_unknown_conversation_or_response_is_rejected_without_a_job(harness):
    with pytest.raises(NotFound):
        harness.start(conversation=new_id("conv"))
    with pytest.raises(InvalidRequest) as caught:
        harness.start(previous=new_id("resp"))

    assert caught.value.code == "previous_response_not_found"
    with harness.database.connection() as connection:
        rows = connection.execute("SELECT 1 FROM jobs WHERE account_id = %s", (harness.caller.account_id,)).fetchall()
    assert rows == []

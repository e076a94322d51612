"""A turn is accepted with its job and its first events, or not at all."""

from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from bench.harness.waiting import wait_until
from models.accounts.ownership import Access
from models.accounts.plans import Allowance, Limits
from models.jobs import jobs
from models.journal.archive import last_archived, read_archive
from models.platform.errors import InvalidRequest, NotFound
from models.platform.ids import new_id
from models.schedules import schedules
from models.turns import conversations
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.start_turn import new_turn_ids, start_turn, start_turn_in_transaction
from tests.pipelines.chat.conftest import REQUEST


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
        conversations.create(connection, conversation, harness.caller.account_id, harness.caller.user_id, {})

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


WAITS_FOR_ACCOUNT = """
SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%accounts%'
"""


def test_request_and_firing_that_interrupt_the_same_turn_do_not_deadlock(harness):
    # Given an unfinished turn of an account with a monthly limit
    database, caller = harness.database, harness.caller
    conversation, allowance = new_id("conv"), Allowance(Limits(tokens_per_month=10**6), context=1000)
    with database.transaction() as connection:
        conversations.create(connection, conversation, caller.account_id, caller.user_id, {})
    first = harness.start(conversation=conversation)
    hello = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    turn = NewTurn(REQUEST, [hello], conversation, if_busy="interrupt")
    # When a schedule fires, which locks the account first, and a request interrupts the turn before the firing does
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as firing:
            schedules.lock_auth_context(firing, caller.account_id, caller.user_id)
            request = pool.submit(start_turn, database, caller, turn, *new_turn_ids(), allowance)
            with database.connection() as observer:
                wait_until(lambda: observer.execute(WAITS_FOR_ACCOUNT).fetchone() is not None)
            fired = start_turn_in_transaction(firing, caller, turn, allowance)
        requested = request.result(20)
    # Then the firing has cancelled the turn, and the request that of the firing
    assert [*fired.interrupted.ended] == [first.response.job_id]
    assert [*requested.interrupted.ended] == [fired.response.job_id]


def test_turn_whose_response_exists_leaves_no_job(harness):
    # Given a turn, of an account that has no monthly limit
    first = harness.start()
    hello = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    # When the same response is started again with another job, as by a repeated request
    job_id = new_id("job")
    repeated = start_turn(
        harness.database, harness.caller, NewTurn(REQUEST, [hello]), first.response.id, job_id, repeat="unanswered"
    )
    inserted = start_turn(harness.database, harness.caller, NewTurn(REQUEST, [hello]), first.response.id, job_id)
    # Then it returns the first turn, and neither the other job nor its events are in the database
    assert repeated.response.job_id == inserted.response.job_id == first.response.job_id
    with harness.database.connection() as connection:
        assert jobs.read(connection, job_id, Access.account(harness.caller.account_id)) is None
        assert last_archived(connection, job_id) == -1

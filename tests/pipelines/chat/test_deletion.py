"""Deleting turns and conversations deletes the memories of them, also while they are being remembered."""

from threading import Thread

import pytest

from bench.harness.waiting import wait_until
from models.accounts.ownership import Access
from models.memory import memories, spaces
from models.memory.spaces import SpaceKey
from models.platform.errors import Conflict
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.turns import conversations, responses
from pipelines.chat import deletion, turn
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.start_turn import start_turn_in_transaction
from pipelines.memory import forget_memories, remember_turns
from tests.pipelines.chat.conftest import REQUEST
from tests.pipelines.memory.job_helpers import claim_next, embed_alike, memory_texts


def run_turn(harness, fake_engine, text, **options):
    started = harness.start(text, **options)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(fake_engine("fine"), attempt))
    return started


def run_remember_job(harness):
    attempt = claim_next(harness, "memory.remember")
    harness.settle(attempt, remember_turns.run(embed_alike, Settings(), attempt))


def test_deleting_a_turn_deletes_its_memories(harness, fake_engine):
    first = run_turn(harness, fake_engine, "I have a cat")
    run_turn(harness, fake_engine, "I have a dog")
    run_remember_job(harness)

    deletion.delete_response(harness.database, harness.stored_response(first))

    assert memory_texts(harness) == ["I have a dog", "fine"]


def test_a_turn_in_progress_is_not_deleted(harness, fake_engine):
    started = harness.start("I have a cat")

    with pytest.raises(Conflict):
        deletion.delete_response(harness.database, harness.stored_response(started))


def test_a_turn_deleted_while_it_is_remembered_leaves_no_memories(harness, fake_engine):
    started = run_turn(harness, fake_engine, "I have a cat")

    def delete_then_embed(texts):
        deletion.delete_response(harness.database, harness.stored_response(started))
        return embed_alike(texts)

    attempt = claim_next(harness, "memory.remember")
    harness.settle(attempt, remember_turns.run(delete_then_embed, Settings(), attempt))

    assert memory_texts(harness) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_deleting_a_conversation_deletes_its_memories(harness, fake_engine, when):
    with harness.database.connection() as connection:
        conversation = conversations.create(
            connection, new_id("conv"), harness.caller.account_id, harness.caller.user_id, {}
        ).id
    run_turn(harness, fake_engine, "I have a cat", conversation=conversation)
    run_turn(harness, fake_engine, "I have a dog")
    if when == "after":
        run_remember_job(harness)

    assert deletion.delete_conversation(harness.database, conversation, Access.own(harness.caller))

    attempt = claim_next(harness, "memory.forget" if when == "after" else "memory.remember")
    harness.settle(
        attempt,
        forget_memories.run(attempt) if when == "after" else remember_turns.run(embed_alike, Settings(), attempt),
    )
    assert memory_texts(harness) == ["I have a dog", "fine"]


def test_deleting_an_unknown_conversation_does_nothing(harness):
    assert not deletion.delete_conversation(harness.database, "conv_1", Access.own(harness.caller))


def test_spaces_with_memories_of_a_conversation_are_found(harness, fake_engine):
    started = run_turn(harness, fake_engine, "I have a cat")
    run_remember_job(harness)

    with harness.database.connection() as connection:
        key = SpaceKey(harness.caller.account_id, harness.caller.user_id)
        space = spaces.find(connection, key)
        assert spaces.with_conversation(connection, key.account_id, started.response.thread) == [key]
        assert len(memories.ids_of_turn(connection, space.id, started.response.thread, started.response.id)) == 2


@pytest.mark.parametrize(("deleted", "texts", "previous"), [(0, "one two", [None, 1]), (1, "zero two", [None, 0])])
def test_a_chain_goes_on_without_a_deleted_turn(harness, fake_engine, deleted, texts, previous):
    # Given a chain of three turns
    turns = []
    for text in ("zero", "one", "two"):
        turns.append(run_turn(harness, fake_engine, text, previous=turns[-1].id if turns else None).response)

    # When one of them is deleted, and the last is continued
    deletion.delete_response(harness.database, turns[deleted])
    engine = fake_engine("ok")
    started = harness.start("three", previous=turns[2].id)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))

    # Then the prompt has the other turns
    asked = [message.content for message in engine.prompts[0] if message.role == "user"]
    assert asked == [*texts.split(), "three"]
    kept = [each for number, each in enumerate(turns) if number != deleted]
    with harness.database.connection() as connection:
        links = [responses.read(connection, each.id, Access.own(harness.caller)).previous_id for each in kept]
    assert links == [None if number is None else turns[number].id for number in previous]


def test_a_turn_that_is_being_accepted_continues_the_turn_before_a_deleted_one(harness, fake_engine):
    # Given a chain of two turns, and a third that is not committed yet
    first = run_turn(harness, fake_engine, "zero").response
    second = run_turn(harness, fake_engine, "one", previous=first.id).response
    deleting = Thread(target=deletion.delete_response, args=(harness.database, second))
    new = NewTurn(REQUEST, [], previous_id=second.id)
    with harness.database.transaction() as connection:
        third = start_turn_in_transaction(connection, harness.caller, new).response

        # When the second is deleted meanwhile
        deleting.start()
        wait_until(lambda: is_waiting_for_a_lock(harness.database), 10)
    deleting.join(10)

    # Then the third continues the first
    with harness.database.connection() as connection:
        assert responses.read(connection, second.id, Access.own(harness.caller)) is None
        assert responses.read(connection, third.id, Access.own(harness.caller)).previous_id == first.id


def is_waiting_for_a_lock(database):
    with database.connection() as connection:
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.execute(waiting).fetchone() is not None

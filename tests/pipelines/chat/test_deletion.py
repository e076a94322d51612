"""Given turns that are remembered, when they are deleted, then nothing of them is remembered, whoever came first."""

import pytest

from models.memory import memories, spaces
from models.platform.errors import Conflict
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.turns import conversations
from pipelines.chat import deletion, turn
from pipelines.memory import forget_memories, remember_turns
from tests.pipelines.memory.job_helpers import embed_alike, claim_next, memory_texts


def say(harness, fake_engine, text, **options):
    started = harness.start(text, **options)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(fake_engine("fine"), attempt))
    return started


def remember(harness):
    attempt = claim_next(harness, "memory.remember")
    harness.settle(attempt, remember_turns.run(embed_alike, Settings(), attempt))


def test_a_deleted_turn_is_forgotten(harness, fake_engine):
    first = say(harness, fake_engine, "I have a cat")
    say(harness, fake_engine, "I have a dog")
    remember(harness)

    deletion.delete_response(harness.database, harness.stored(first))

    assert memory_texts(harness) == ["I have a dog", "fine"]


def test_a_turn_in_progress_keeps_its_memories(harness, fake_engine):
    started = harness.start("I have a cat")

    with pytest.raises(Conflict):
        deletion.delete_response(harness.database, harness.stored(started))


def test_a_turn_that_is_deleted_before_it_is_remembered_never_is(harness, fake_engine):
    started = say(harness, fake_engine, "I have a cat")

    def meanwhile(texts):
        deletion.delete_response(harness.database, harness.stored(started))
        return embed_alike(texts)

    attempt = claim_next(harness, "memory.remember")
    harness.settle(attempt, remember_turns.run(meanwhile, Settings(), attempt))

    assert memory_texts(harness) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_deleted_conversation_is_forgotten(harness, fake_engine, when):
    with harness.database.connection() as connection:
        conversation = conversations.create(connection, new_id("conv"), harness.caller.account_id, {}).id
    say(harness, fake_engine, "I have a cat", conversation=conversation)
    say(harness, fake_engine, "I have a dog")
    if when == "after":
        remember(harness)

    assert deletion.delete_conversation(harness.database, conversation, harness.caller.account_id)

    attempt = claim_next(harness, "memory.forget" if when == "after" else "memory.remember")
    harness.settle(
        attempt, forget_memories.run(attempt) if when == "after" else remember_turns.run(embed_alike, Settings(), attempt)
    )
    assert memory_texts(harness) == ["I have a dog", "fine"]


def test_a_conversation_of_nobody_is_none(harness):
    assert not deletion.delete_conversation(harness.database, "conv_1", harness.caller.account_id)


def test_a_space_knows_who_remembers_a_conversation(harness, fake_engine):
    started = say(harness, fake_engine, "I have a cat")
    remember(harness)

    with harness.database.connection() as connection:
        account_id = harness.caller.account_id
        found = spaces.users_with_conversation(connection, account_id, started.response.thread)
        space = spaces.find(connection, account_id, harness.caller.user_id)
        assert found == [harness.caller.user_id]
        assert len(memories.ids_of_turn(connection, space.id, started.response.thread, started.response.id)) == 2

"""Given turns that are remembered, when they are deleted, then nothing of them is remembered, whoever came first."""

import pytest

from models.memory import memories, spaces
from models.platform.errors import Conflict
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.turns import conversations
from pipelines.chat import deletion, turn
from pipelines.memory import forget_memories, remember_turns
from tests.pipelines.memory.job_helpers import flat, next_job, remembered


def say(room, fake, text, **options):
    started = room.start(text, **options)
    attempt = room.attempt(started)
    room.settle(attempt, turn.run(fake("fine"), attempt))
    return started


def remember(room):
    attempt = next_job(room, "memory.remember")
    room.settle(attempt, remember_turns.run(flat, Settings(), attempt))


def test_a_deleted_turn_is_forgotten(room, fake):
    first = say(room, fake, "I have a cat")
    say(room, fake, "I have a dog")
    remember(room)

    deletion.forget_response(room.database, room.stored(first))

    assert remembered(room) == ["I have a dog", "fine"]


def test_a_turn_in_progress_keeps_its_memories(room, fake):
    started = room.start("I have a cat")

    with pytest.raises(Conflict):
        deletion.forget_response(room.database, room.stored(started))


def test_a_turn_that_is_deleted_before_it_is_remembered_never_is(room, fake):
    started = say(room, fake, "I have a cat")

    def meanwhile(texts):
        deletion.forget_response(room.database, room.stored(started))
        return flat(texts)

    attempt = next_job(room, "memory.remember")
    room.settle(attempt, remember_turns.run(meanwhile, Settings(), attempt))

    assert remembered(room) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_deleted_conversation_is_forgotten(room, fake, when):
    with room.database.connection() as connection:
        conversation = conversations.create(connection, new_id("conv"), room.caller.account_id, {}).id
    say(room, fake, "I have a cat", conversation=conversation)
    say(room, fake, "I have a dog")
    if when == "after":
        remember(room)

    assert deletion.forget_conversation(room.database, conversation, room.caller.account_id)

    attempt = next_job(room, "memory.forget" if when == "after" else "memory.remember")
    room.settle(
        attempt, forget_memories.run(attempt) if when == "after" else remember_turns.run(flat, Settings(), attempt)
    )
    assert remembered(room) == ["I have a dog", "fine"]


def test_a_conversation_of_nobody_is_none(room):
    assert not deletion.forget_conversation(room.database, "conv_1", room.caller.account_id)


def test_a_space_knows_who_remembers_a_conversation(room, fake):
    started = say(room, fake, "I have a cat")
    remember(room)

    with room.database.connection() as connection:
        account_id = room.caller.account_id
        found = spaces.users_with_conversation(connection, account_id, started.response.thread)
        space = spaces.find(connection, account_id, room.caller.user_id)
        assert found == [room.caller.user_id]
        assert len(memories.ids_of_turn(connection, space.id, started.response.thread, started.response.id)) == 2

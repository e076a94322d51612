"""A deletion holds the lock of the space for short transactions, and continues after a release."""

from datetime import UTC, datetime

import pytest

from models.jobs.jobs import NewJob, enqueue
from models.memory import meditations, memories, spaces
from models.memory.memories import Filters, NewMemory
from models.memory.spaces import SpaceKey
from models.platform.errors import Released
from models.platform.ids import new_id
from pipelines import time_slice
from pipelines.memory import forget_memories
from pipelines.memory.forget_memories import BATCH, FIRST_BATCH, LOCK_TIME
from pipelines.memory.store import insert_memories, write_memories
from tests.pipelines.chat.conftest import TurnHarness
from tests.pipelines.memory.job_helpers import embed_alike

COUNT = 5 * FIRST_BATCH

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("size", "seconds", "following"),
    [
        (FIRST_BATCH, 0.01, 2 * FIRST_BATCH),
        (BATCH, 0.01, BATCH),
        (FIRST_BATCH, LOCK_TIME / 2, FIRST_BATCH),
        (FIRST_BATCH, 2 * LOCK_TIME, FIRST_BATCH // 2),
        (1, 2 * LOCK_TIME, 1),
    ],
)
def test_batches_follow_the_time_that_the_last_one_took(size, seconds, following):
    assert forget_memories._next_size(size, seconds) == following


@pytest.fixture
def owner(database, account):
    """The ids of an account and of a user with COUNT memories in it."""
    user_id = new_id("user")
    with database.transaction() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
        space = spaces.find_or_create(connection, SpaceKey(account, user_id))
        new_memories = [NewMemory(new_id("mem"), f"tree {number}", "Ada", NOW) for number in range(COUNT)]
        insert_memories(connection, space, [(new, [1.0, *[0.0] * 383]) for new in new_memories])
    return account, user_id


def test_a_deletion_yields_between_its_batches_and_counts_all_of_them(database, begin, owner, monkeypatch):
    # Given a job of another account that waits for the thread
    monkeypatch.setattr(time_slice.TimeSlice.__init__, "__defaults__", (time_slice.SECONDS, 0))
    job = NewJob("memory.forget", owner[0], {"user_id": owner[1], "conversation_id": None})
    waiting = NewJob("memory.forget", new_id("acct"))
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'another')", (waiting.account_id,))
        enqueue(connection, waiting)
        connection.execute("UPDATE jobs SET published_at = now() - interval '1 second' WHERE id = %s", (waiting.id,))

    # When all memories are deleted
    with pytest.raises(Released):
        forget_memories.run(begin(job))

    # Then a batch is deleted, and the rest once the other job runs
    assert len(stored(database, owner)) == COUNT - FIRST_BATCH
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (waiting.id,))
    assert forget_memories.run(begin(job)).result == {"deleted": COUNT}
    assert stored(database, owner) == []


def test_deleting_all_of_an_end_user_deletes_their_space_and_meditations(database, begin, owner):
    # Given two end users with a memory and a meditation each
    keys = [SpaceKey(*owner, name) for name in ("alice", "bob")]
    for key in keys:
        write_memories(database, embed_alike, key, [NewMemory(new_id("mem"), "hello", "user", NOW)])
        with database.connection() as connection:
            assert meditations.insert(connection, new_id("med"), key, job_id=new_id("job"))
    # When all memories of one of them are deleted
    arguments = {**keys[0].arguments, "conversation_id": None}
    ending = forget_memories.run(begin(NewJob("memory.forget", owner[0], arguments)))
    # Then nothing is left of that one, and the other and the user keep theirs
    assert ending.result == {"deleted": 1}
    with database.connection() as connection:
        assert [spaces.find(connection, key) is None for key in keys] == [True, False]
        assert [len(meditations.page(connection, key)) for key in keys] == [0, 1]
    assert len(stored(database, owner)) == COUNT


@pytest.fixture
def harness(database, redis_client):
    harness = TurnHarness(database, redis_client)
    yield harness
    harness.close()


def test_memories_created_after_the_request_are_kept_but_not_those_of_earlier_turns(database, begin, owner):
    # Given a request to delete all memories, and two memories that are written before it is carried out
    earlier_turn = new_id("resp")
    job = NewJob("memory.forget", owner[0], {"user_id": owner[1], "conversation_id": None}, id=later_id("job", 1))
    of_turn = NewMemory(later_id("mem", 2), "I have a cat", "user", NOW, response_id=earlier_turn)
    newer = NewMemory(later_id("mem", 2), "I have a dog", "user", NOW)
    write_memories(database, embed_alike, SpaceKey(*owner), [of_turn, newer])
    # When it is carried out
    ending = forget_memories.run(begin(job))
    # Then only the memory that was created after the request is left
    assert ending.result == {"deleted": COUNT + 1}
    assert [memory.id for memory in stored(database, owner)] == [newer.id]


def test_memories_derived_from_the_deleted_ones_meanwhile_are_deleted(database, begin, owner):
    # Given a fact that is derived from an old memory after the request
    job = NewJob("memory.forget", owner[0], {"user_id": owner[1], "conversation_id": None}, id=later_id("job", 1))
    source = stored(database, owner)[0].id
    fact = NewMemory(later_id("mem", 2), "There are trees", "user", NOW, kind="fact", sources=[source])
    write_memories(database, embed_alike, SpaceKey(*owner), [fact])
    # When the request is carried out
    ending = forget_memories.run(begin(job))
    # Then the fact is deleted as well
    assert ending.result == {"deleted": COUNT + 1}
    with database.connection() as connection:
        assert memories.page(connection, SpaceKey(*owner), Filters(), limit=1000, closed=True) == []


def later_id(prefix, seconds):
    """Return an id that is created so many seconds from now."""
    digits = new_id(prefix).removeprefix(f"{prefix}_")
    return f"{prefix}_{int(digits[:12], 16) + 1000 * seconds:012x}{digits[12:]}"


class WorkerKilled(Exception):
    """The worker died at this point."""


def test_repeated_attempt_keeps_turns_and_meditations_created_after_the_request(harness, begin, monkeypatch):
    # Given an end user with a turn to remember and a meditation, and an attempt that dies after it erased both
    key = SpaceKey(harness.caller.account_id, harness.caller.user_id, "alice")
    write_memories(harness.database, embed_alike, key, [NewMemory(new_id("mem"), "hello", "user", NOW)])
    create_turn_and_meditation(harness, key)
    job = NewJob("memory.forget", key.account_id, {**key.arguments, "conversation_id": None})
    delete_batch = forget_memories._delete_batch
    monkeypatch.setattr(forget_memories, "_delete_batch", kill_worker)
    with pytest.raises(WorkerKilled):
        forget_memories.run(begin(job))
    monkeypatch.setattr(forget_memories, "_delete_batch", delete_batch)
    assert turns_and_meditations(harness.database, key) == ([], [])

    # When the end user starts a turn and a meditation, and the job is repeated
    response_id, meditation_id = create_turn_and_meditation(harness, key)
    ending = forget_memories.run(begin(job))

    # Then both are kept, and the memory is deleted
    assert ending.result == {"deleted": 1}
    assert turns_and_meditations(harness.database, key) == ([response_id], [meditation_id])


def kill_worker(*arguments):
    raise WorkerKilled


def create_turn_and_meditation(harness, key):
    """Start a turn that is to be remembered, and a meditation; returns their ids."""
    meditation_id = new_id("med")
    with harness.database.connection() as connection:
        assert meditations.insert(connection, meditation_id, key, job_id=new_id("job"))
    return harness.start("I have a cat", space=key.end_user).response.id, meditation_id


def turns_and_meditations(database, key):
    """Return the ids of the turns to be remembered and of the meditations of a space."""
    with database.connection() as connection:
        turns = connection.execute(
            "SELECT id FROM responses WHERE account_id = %s AND space = %s AND unremembered",
            (key.account_id, key.end_user),
        )
        return [row["id"] for row in turns], [meditation.id for meditation in meditations.page(connection, key)]


def stored(database, owner):
    with database.connection() as connection:
        return memories.page(connection, SpaceKey(*owner), Filters(), limit=1000)

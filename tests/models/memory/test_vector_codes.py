"""The codes of vectors follow all changes of memories, and select the nearest vectors."""

from datetime import UTC, datetime

import numpy as np
import pytest

from models.memory import code_search, spaces, vector_codes, vector_search, vectors
from models.memory.memories import MemoryUpdate, NewMemory, read
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from pipelines.memory import change_memory, forget_memories, store

NOW = datetime(2026, 5, 4, tzinfo=UTC)
RANDOM = np.random.default_rng(3)


@pytest.fixture
def small_blocks(monkeypatch):
    """Every space is large, and a block has four ordinals."""
    monkeypatch.setattr(vector_codes, "BLOCK", 4)
    monkeypatch.setattr(vector_codes, "EXACT_UP_TO", 0)


def random_vector():
    vector = RANDOM.standard_normal(384)
    return (vector / np.linalg.norm(vector)).tolist()


def write(database, owner, count):
    """Write memories with random vectors one by one, and return their ids."""
    new_memories = [NewMemory(new_id("mem"), f"number {number}", "Ada", NOW) for number in range(count)]
    for new in new_memories:
        store.write_memories(database, lambda texts: [random_vector() for _ in texts], SpaceKey(*owner), [new])
    return [new.id for new in new_memories]


def change(database, owner, function):
    """Call a function with a connection and the locked space, in a transaction."""
    with database.transaction() as connection:
        function(connection, store.lock_space(connection, spaces.find(connection, SpaceKey(*owner)).id))


def stored_codes(database, owner):
    """Return ordinal → code, without the codes of zeros."""
    with database.connection() as connection:
        codes = code_search.read(connection, spaces.find(connection, SpaceKey(*owner)).id)
    pairs = zip(codes.ordinals.tolist(), codes.words, strict=True)
    return {ordinal: words.tobytes() for ordinal, words in pairs if words.any()}


def expected_codes(database, owner, below):
    """Return ordinal → code, computed from the live vectors."""
    statement = """
        SELECT ordinal, embedding::text AS embedding FROM memory_vectors JOIN memory_spaces ON id = space_id
        WHERE account_id = %s AND user_id = %s AND memory_vectors.live AND ordinal < %s"""
    with database.connection() as connection:
        rows = connection.execute(statement, (*owner, below)).fetchall()
    return {
        row["ordinal"]: np.packbits(np.array([float(n) for n in row["embedding"][1:-1].split(",")]) > 0).tobytes()
        for row in rows
    }


@pytest.mark.usefixtures("small_blocks")
def test_full_blocks_have_the_signs_of_the_vectors(database, owner):
    write(database, owner, 10)

    codes = stored_codes(database, owner)

    assert sorted(codes) == list(range(8))
    assert codes == expected_codes(database, owner, 8)


@pytest.mark.usefixtures("small_blocks")
def test_codes_follow_changed_closed_reopened_and_deleted_memories(database, owner):
    ids = write(database, owner, 12)
    with database.connection() as connection:
        memory = read(connection, ids[1], SpaceKey(*owner))
    update, vector = MemoryUpdate(text="another text"), random_vector()

    change(database, owner, lambda *at: store.close_memories(*at, ids[2:4]))
    change(database, owner, lambda *at: forget_memories.delete_memories(*at, ids[4:9]))
    change(database, owner, lambda *at: change_memory.update_memory(*at, memory, update, [vector]))
    closed = stored_codes(database, owner)
    expected = expected_codes(database, owner, 12)
    change(database, owner, lambda *at: store.reopen_memories(*at, ids[2:3]))

    assert sorted(closed) == [0, 1, 9, 10, 11]
    assert closed == expected
    assert closed[1] == np.packbits(np.array(vector) > 0).tobytes()
    assert stored_codes(database, owner) == expected_codes(database, owner, 12)
    assert 2 in stored_codes(database, owner)


@pytest.mark.usefixtures("small_blocks")
def test_the_codes_of_a_deleted_block_are_erased(database, owner):
    ids = write(database, owner, 4)

    change(database, owner, lambda *at: forget_memories.delete_memories(*at, ids))

    with database.connection() as connection:
        space_id = spaces.find(connection, SpaceKey(*owner)).id
        row = connection.execute("SELECT codes FROM memory_vector_codes WHERE space_id = %s", (space_id,)).fetchone()
    assert row == {"codes": b""}


def test_a_small_space_has_no_codes(database, owner, monkeypatch):
    monkeypatch.setattr(vector_codes, "BLOCK", 4)

    write(database, owner, 5)

    assert stored_codes(database, owner) == {}


@pytest.mark.usefixtures("small_blocks")
def test_search_finds_memories_with_and_without_a_code(database, owner):
    write(database, owner, 10)
    with database.connection() as connection:
        space, vector = spaces.find(connection, SpaceKey(*owner)), random_vector()
        found = vector_search.nearest(connection, space, vector, 10)
        of_some = vector_search.nearest(connection, space, vector, 10, np.array([1, 3, 9]))

        assert found == vectors.search_exact(connection, space.id, vector, 10)
        assert {ordinal for ordinal, _ in found} == set(range(10))
        assert {ordinal for ordinal, _ in of_some} == {1, 3, 9}


@pytest.mark.usefixtures("small_blocks")
def test_search_of_a_large_space_that_is_not_packed_is_exact(database, owner, monkeypatch):
    write(database, owner, 10)
    monkeypatch.setattr(vector_search, "MAX_WITHOUT_CODE", 9)
    with database.connection() as connection:
        space, vector = spaces.find(connection, SpaceKey(*owner)), random_vector()
        connection.execute("DELETE FROM memory_vector_codes WHERE space_id = %s", (space.id,))

        found = vector_search.nearest(connection, space, vector, 3)

        assert found == vectors.search_exact(connection, space.id, vector, 3)

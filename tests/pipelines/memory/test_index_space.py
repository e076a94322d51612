"""Spaces from before there were codes of vectors get them, and lose the indexes that earlier versions built."""

from datetime import UTC, datetime

import numpy as np
import pytest

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob
from models.memory import code_search, spaces, vector_codes, vector_indexes
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from pipelines.memory import index_space, store

NOW = datetime(2026, 5, 4, tzinfo=UTC)
RANDOM = np.random.default_rng(9)


@pytest.fixture
def space(database, account, monkeypatch):
    """A space with ten memories, without codes; every space is large, and a block has four ordinals."""
    user_id = new_id("user")
    with database.transaction() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
        space = spaces.find_or_create(connection, SpaceKey(account, user_id))
        new_memories = [NewMemory(new_id("mem"), f"number {number}", "Ada", NOW) for number in range(10)]
        store.insert_memories(connection, space, [(new, RANDOM.standard_normal(384).tolist()) for new in new_memories])
    monkeypatch.setattr(vector_codes, "BLOCK", 4)
    monkeypatch.setattr(index_space, "BLOCK", 4)
    monkeypatch.setattr(vector_codes, "EXACT_UP_TO", 5)
    return space


def create_old_index(database, space_id):
    """Create an index as earlier versions did."""
    with database.connection() as connection:
        connection.execute(
            f"CREATE INDEX memory_vectors_of_{space_id} ON memory_vectors USING hnsw (embedding halfvec_cosine_ops)"
            f" WHERE space_id = {space_id} AND live"
        )
        connection.execute("UPDATE memory_spaces SET indexed_at = now() WHERE id = %s", (space_id,))


def indexed_spaces(database):
    with database.connection() as connection:
        return vector_indexes.indexed_spaces(connection)


def packed_ordinals(database, space):
    with database.connection() as connection:
        codes = code_search.read(connection, space.id)
    return codes.ordinals[codes.words.any(axis=1)].tolist()


def test_job_of_the_previous_version_drops_the_index_and_packs_the_codes(database, begin, settle, space):
    create_old_index(database, space.id)

    attempt = begin(NewJob("memory.index", PLATFORM_ACCOUNT, {"space_id": space.id}))
    ending = index_space.run(attempt)
    settle(attempt, ending)

    with database.connection() as connection:
        row = connection.execute("SELECT * FROM memory_spaces WHERE id = %s", (space.id,)).fetchone()
    assert ending.state == "completed"
    assert space.id not in indexed_spaces(database)
    assert row["indexed_at"] is None
    assert row["index_asked_at"] is not None  # the previous version does not ask again at once
    assert packed_ordinals(database, space) == list(range(8))


def test_sweep_drops_the_indexes_of_all_spaces_and_of_deleted_ones(database, begin, settle, space):
    for space_id in (space.id, 999_999_999):
        create_old_index(database, space_id)

    attempt = begin(NewJob("maintenance.prune", PLATFORM_ACCOUNT))
    index_space.sweep(attempt)

    assert indexed_spaces(database) == []


def test_sweep_packs_large_spaces_without_codes(database, begin, space):
    index_space.sweep(begin(NewJob("maintenance.prune", PLATFORM_ACCOUNT)))

    assert packed_ordinals(database, space) == list(range(8))


def test_sweep_leaves_small_spaces_without_codes(database, begin, space, monkeypatch):
    monkeypatch.setattr(vector_codes, "EXACT_UP_TO", 10)

    index_space.sweep(begin(NewJob("maintenance.prune", PLATFORM_ACCOUNT)))

    assert packed_ordinals(database, space) == []


def test_codes_of_vectors_that_the_previous_version_changed_are_packed_again(database, begin, space):
    attempt = begin(NewJob("memory.index", PLATFORM_ACCOUNT, {"space_id": space.id}))
    index_space.pack_space(attempt, space.id)
    with database.connection() as connection:
        connection.execute("UPDATE memory_vectors SET live = false WHERE space_id = %s AND ordinal = 5", (space.id,))

    index_space.pack_space(attempt, space.id)

    assert packed_ordinals(database, space) == [0, 1, 2, 3, 4, 6, 7]


def test_packing_covers_more_blocks_than_one_statement(database, begin, space, monkeypatch):
    monkeypatch.setattr(vector_codes, "MAX_PACKED", 1)
    monkeypatch.setattr(index_space, "MAX_PACKED", 1)

    index_space.pack_space(begin(NewJob("memory.index", PLATFORM_ACCOUNT, {"space_id": space.id})), space.id)

    assert packed_ordinals(database, space) == list(range(8))


def see_earlier_version(database, days_ago):
    with database.connection() as connection:
        connection.execute(
            "UPDATE schema_compatibility SET older_seen_at = now() - make_interval(days => %s)", (days_ago,)
        )


@pytest.mark.parametrize(("days_ago", "repaired"), [(0, True), (1, True), (3, False)])
def test_sweep_corrects_codes_of_vectors_that_an_earlier_version_has_changed(
    database, begin, space, days_ago, repaired
):
    # Given a space with codes, in which an earlier version has deleted a memory and replaced a vector of one block
    attempt = begin(NewJob("maintenance.prune", PLATFORM_ACCOUNT))
    index_space.pack_space(attempt, space.id)
    with database.connection() as connection:
        before = vector_codes.read_versions(connection, space.id)
        old = code_search.read(connection, space.id).words[2].tolist()
        connection.execute("UPDATE memory_vectors SET live = false WHERE space_id = %s AND ordinal = 1", (space.id,))
        vector = str(RANDOM.standard_normal(384).tolist())
        connection.execute(
            "UPDATE memory_vectors SET embedding = %s WHERE space_id = %s AND ordinal = 2", (vector, space.id)
        )
    # When the nightly sweep runs
    see_earlier_version(database, days_ago)
    index_space.sweep(attempt)
    # Then that block is packed again, and only that one
    with database.connection() as connection:
        after = vector_codes.read_versions(connection, space.id)
        new = code_search.read(connection, space.id).words[2].tolist()
    assert (1 not in packed_ordinals(database, space), new != old) == (repaired, repaired)
    assert [block for block in after if after[block] != before[block]] == ([0] if repaired else [])

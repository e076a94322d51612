"""Texts are analysed before their space is locked: a batch of long ones of rare words takes half a minute."""

from datetime import UTC, datetime

import pytest

from models.memory import spaces
from models.memory.memories import MemoryUpdate, NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from pipelines.memory import change_memory, reindex, terms
from pipelines.memory.index_entries import IndexEntries
from pipelines.memory.store import write_memories
from tests.pipelines.memory.job_helpers import embed_alike

DAY = datetime(2026, 11, 16, 9, tzinfo=UTC)
TEXT = "A short text about cats. " * 50


@pytest.fixture
def write(database, owner):
    """`write(text, …)` → the memories of one batch are written."""

    def write(*texts):
        memories = [NewMemory(new_id("mem"), text, "user", DAY) for text in texts]
        return write_memories(database, embed_alike, SpaceKey(*owner), memories)

    return write


@pytest.fixture
def locked(database, owner, monkeypatch):
    """Whether the space was locked, at each analysis of a text."""
    seen, weigh = [], terms.term_weights

    def term_weights(*arguments):
        with database.transaction() as connection:
            query = "SELECT id FROM memory_spaces WHERE user_id = %s FOR UPDATE SKIP LOCKED"
            seen.append(connection.execute(query, (owner[1],)).fetchone() is None)
        return weigh(*arguments)

    monkeypatch.setattr(terms, "term_weights", term_weights)
    return seen


def test_memories_are_analysed_before_the_lock(write, locked):
    write(TEXT, "short")

    assert len(locked) > 2  # the texts, and the passages of the long one
    assert not any(locked)


def test_memories_are_analysed_before_the_lock_when_they_are_indexed_again(write, locked, database, owner):
    write(TEXT, "short")
    locked.clear()
    with database.connection() as connection:
        space = spaces.find(connection, SpaceKey(*owner))
        spaces.set_reindex_below(connection, space.id, space.next_ordinal)

    assert reindex._index_batch(database, space.id) == 2

    assert len(locked) > 2
    assert not any(locked)


def test_entries_of_another_version_are_not_used():
    entries = IndexEntries(terms.CURRENT, [TEXT])

    assert entries.in_version(terms.CURRENT) is entries
    assert entries.in_version(terms.CURRENT - 1)[TEXT].passages == ()


def test_the_entry_of_an_unknown_text_is_found_when_needed():
    assert IndexEntries(terms.CURRENT)["cats"].weights == terms.term_weights("cats")


def test_a_changed_text_is_analysed_before_the_lock(write, locked, database, owner):
    (memory_id,) = write("short")
    locked.clear()
    with database.connection() as connection:
        space = spaces.find(connection, SpaceKey(*owner))

    changed = change_memory._change(embed_alike, database, space, memory_id, MemoryUpdate(text=TEXT))

    assert changed.text == TEXT
    assert len(locked) > 2
    assert not any(locked)

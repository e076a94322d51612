"""Long memories have passages with index entries of their own, which follow every change of the memory."""

import itertools
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from models.memory import memories, postings, spaces
from models.memory.memories import MemoryUpdate, NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from pipelines.memory import (
    change_memory,
    forget_memories,
    index_space,
    passage_matches,
    passages,
    reindex,
    store,
    terms,
)
from pipelines.memory.passages import MAX_PASSAGE, MIN_LONG, split_passages, split_sentences
from pipelines.memory.recall import Query, recall
from tests.pipelines.memory.job_helpers import embed_alike

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)

LONG = (
    "The committee discussed the budget of the garden club. " * 40
    + "My passport is behind the mirror. "
    + "The end. " * 20
)


def remember(database, owner, *texts):
    new = [NewMemory(new_id("mem"), text, "user", NOW) for text in texts]
    return store.write_memories(database, embed_alike, SpaceKey(*owner), new)


def space_of(database, owner):
    with database.connection() as connection:
        return spaces.find(connection, SpaceKey(*owner))


def indexed(database, owner):
    """Return the number of passages, and the number of their entries in the postings."""
    space = space_of(database, owner)
    with database.connection() as connection:
        count = connection.execute("SELECT count(*) AS count FROM memory_passages WHERE space_id = %s", (space.id,))
        rows = connection.execute(
            "SELECT coalesce(sum(octet_length(entries)), 0)::int AS size FROM memory_postings "
            "WHERE space_id = %s AND block < 0",
            (space.id,),
        )
        return count.fetchone()["count"], rows.fetchone()["size"] // postings.ENTRY.itemsize


def locked(database, owner, change):
    """Run `change(connection, space)` under the lock of the space."""
    with database.transaction() as connection:
        return change(connection, store.lock_space(connection, spaces.find(connection, SpaceKey(*owner)).id))


def jobs(database, owner):
    with database.connection() as connection:
        return connection.execute(
            "SELECT id FROM jobs WHERE account_id = %s AND kind = 'memory.reindex' AND state = 'queued'", (owner[0],)
        ).fetchall()


def run_reindex(database, owner, begin, settle):
    """Run the queued job of the owner."""
    ((job,), attempt_of) = jobs(database, owner), passages.reindex_job(SpaceKey(*owner))
    attempt = begin(replace(attempt_of, id=job["id"]))
    ending = reindex.run(embed_alike, attempt)
    settle(attempt, ending)
    return ending.result["indexed"]


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        "word " * 2000,
        "鍵は台所の引き出しの奥にあります。" * 100,
        "x" * 3000,
        "\n" * 2000 + "end",
        "e\u0301" * 1500,
    ],
)
def test_passages_cover_a_long_text_in_order(text):
    parts = list(split_passages(text))
    assert all(0 < length <= MAX_PASSAGE for _, length in parts)
    assert all(start + length <= after for (start, length), (after, _) in itertools.pairwise(parts))
    assert "".join(text[start : start + length] for start, length in parts).split() == text.split()


def test_short_text_has_no_passages():
    assert list(split_passages("word " * (MIN_LONG // 5 - 1))) == []


def test_passages_are_counted_neither_as_memories_nor_as_frequencies(database, owner):
    remember(database, owner, LONG, "A short one about a garden.")
    space = space_of(database, owner)
    assert (space.live, space.next_ordinal) == (2, 2)
    count, entries = indexed(database, owner)
    assert count == space.next_passage > 9
    assert entries > count
    hits = recall(database, embed_alike, SpaceKey(*owner), Query("garden"), NOW)
    assert sorted(hit.memory.text for hit in hits) == sorted([LONG, "A short one about a garden."])
    assert all(0 <= hit.parts["lexical"] < 2 for hit in hits)


def test_passages_follow_close_reopen_change_and_delete(database, owner):
    (memory_id,) = remember(database, owner, LONG)
    count, entries = indexed(database, owner)

    locked(database, owner, lambda connection, space: store.close_memories(connection, space, [memory_id]))
    assert indexed(database, owner) == (0, 0)

    locked(database, owner, lambda connection, space: store.reopen_memories(connection, space, [memory_id]))
    assert indexed(database, owner) == (count, entries)

    def change(text):
        def update(connection, space):
            memory = memories.read(connection, memory_id, SpaceKey(*owner))
            change_memory.update_memory(connection, space, memory, MemoryUpdate(text=text), embed_alike([text]))

        return update

    locked(database, owner, change("short"))
    assert indexed(database, owner) == (0, 0)
    locked(database, owner, change(LONG))
    assert indexed(database, owner) == (count, entries)

    locked(database, owner, lambda connection, space: forget_memories.delete_memories(connection, space, [memory_id]))
    assert indexed(database, owner) == (0, 0)


def test_job_embeds_passages_once(database, owner, begin, settle):
    remember(database, owner, LONG)
    count, _ = indexed(database, owner)
    assert run_reindex(database, owner, begin, settle) == count
    assert jobs(database, owner) == []
    space = space_of(database, owner)
    with database.connection() as connection:
        assert passages_without_vector(connection, space.id) == {}


def passages_without_vector(connection, space_id):
    return reindex.passages.without_vector(connection, space_id, 1000)


def test_space_of_many_passages_is_searched_by_terms(database, owner, monkeypatch):
    monkeypatch.setattr(passage_matches, "MAX_COMPARED", 3)
    (memory_id,) = remember(database, owner, LONG)
    hit = recall(database, embed_alike, SpaceKey(*owner), Query("passport"), NOW)[0]
    start, length = hit.passage
    assert hit.memory.id == memory_id
    assert "passport" in hit.memory.text[start : start + length]


def make_earlier(database, owner):
    """Give the owner's space the terms of earlier versions, as before the upgrade."""
    with database.transaction() as connection:
        space = spaces.find_or_create(connection, SpaceKey(*owner))
        connection.execute("UPDATE memory_spaces SET term_version = 1 WHERE id = %s", (space.id,))


def test_space_has_earlier_terms_until_its_upgrade_is_finalized(database, owner, begin, settle):
    # Given a space of an earlier version, which is searched and written meanwhile
    make_earlier(database, owner)
    remember(database, owner, LONG, "Der Schlüssel hängt in der Küche", "東京で買った鍵")
    assert indexed(database, owner) == (0, 0)
    texts = {"Schlüssel": "Der Schlüssel hängt in der Küche", "東京": "東京で買った鍵", "committee": LONG}
    stored = {term for text in texts.values() for term in terms.extract_terms(text, terms.EARLIER)}
    assert stored_terms(database, owner) == stored
    assert_found(database, owner, texts)

    # When the nightly pruning enqueues its job, and the job runs
    with database.transaction() as connection:
        assert reindex.enqueue_due(connection) >= 1
    run_reindex(database, owner, begin, settle)

    # Then the space has the present terms alone, and passages
    space = space_of(database, owner)
    assert (space.term_version, space.reindex_below) == (terms.CURRENT, 0)
    assert indexed(database, owner)[0] == space.next_passage > 9
    present = {term for text in texts.values() for term in terms.extract_terms(text)}
    assert present <= stored_terms(database, owner) <= present | set(terms.extract_terms(LONG))
    assert_found(database, owner, texts)


def test_half_indexed_space_is_searched_by_both_versions_of_terms(database, owner, begin, monkeypatch):
    make_earlier(database, owner)
    texts = {f"Schlüssel{number}": f"Schlüssel{number} hängt über der Küchentür" for number in range(4)}
    remember(database, owner, *texts.values())
    monkeypatch.setattr(reindex, "BATCH", 2)
    space = space_of(database, owner)
    with database.connection() as connection:
        spaces.begin_reindex(connection, space.id, terms.CURRENT)
    reindex._index_batch(database, space.id)
    assert space_of(database, owner).reindex_below == 2
    assert_found(database, owner, texts)


def stored_terms(database, owner):
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT DISTINCT term FROM memory_postings WHERE space_id = %s", (space_of(database, owner).id,)
        ).fetchall()
    return {row["term"] for row in rows}


def assert_found(database, owner, texts):
    for query, text in texts.items():
        hit = recall(database, embed_alike, SpaceKey(*owner), Query(query), NOW)[0]
        assert hit.memory.text == text
        assert hit.parts["lexical"] > 0


def test_nothing_is_enqueued_before_the_upgrade_is_finalized(empty_database):
    with empty_database.transaction() as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_code = '0020'")
        connection.execute("INSERT INTO accounts (id, name) VALUES ('acct_a', 'a')")
        connection.execute("INSERT INTO users (id, email) VALUES ('user_a', 'a@example.com')")
        space = spaces.find_or_create(connection, SpaceKey("acct_a", "user_a"))
        assert space.term_version == terms.EARLIER
        assert reindex.enqueue_due(connection) == 0
        connection.execute("UPDATE schema_compatibility SET oldest_code = '0021'")
        assert reindex.enqueue_due(connection) == 1


def test_sweep_enqueues_what_is_due(database, owner, begin):
    make_earlier(database, owner)
    remember(database, owner, "one")
    index_space.sweep(begin(reindex.reindex_job(SpaceKey(*owner))))
    assert len(jobs(database, owner)) >= 1


@pytest.mark.parametrize("marks", [".", "?!", ".)"])
def test_a_text_of_marks_is_split_in_linear_time(marks):
    text, started = marks * 100_000, time.process_time()

    spans = list(split_sentences(text))

    assert sum(length for _, length in spans) == len(text)
    assert time.process_time() - started < 10


def test_several_marks_end_one_sentence():
    text = 'Really?! "Yes..." she said.\nGood.'

    assert [text[start : start + length] for start, length in split_sentences(text)] == [
        "Really?! ",
        '"Yes..." ',
        "she said.\n",
        "Good.",
    ]

"""Recall ranks the memories of spaces of any size, with and without codes of their vectors, and applies filters."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.memory import memories, spaces, vector_codes, vector_search, vectors
from models.memory.memories import Filters, NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from pipelines.memory import recall as recall_module
from pipelines.memory import store
from pipelines.memory.recall import Query, recall, top_ordinals

COUNT, OTHERS, TOPICS = 2000, 500, 40
NOW = datetime(2026, 5, 4, tzinfo=UTC)


def unit_vector(rng, centres):
    vector = centres[rng.integers(len(centres))] + rng.standard_normal(384) * 0.8
    return (vector / np.linalg.norm(vector)).tolist()


def memory(number):
    occurred_at = NOW + timedelta(minutes=number)
    speaker, talk = ("Ada", "Ben")[number % 2], f"talk {number // 50}"
    return NewMemory(new_id("mem"), f"number {number} of lake", speaker, occurred_at, conversation_id=talk)


@pytest.fixture(scope="module")
def owners(database):
    """Return (account id, user id) of two users of an account with memories, and a function that makes vectors."""
    account_id, mine, theirs = new_id("acct"), new_id("user"), new_id("user")
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((TOPICS, 384))
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
        for user_id, count in ((mine, COUNT), (theirs, OTHERS)):
            connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
            space = spaces.find_or_create(connection, SpaceKey(account_id, user_id))
            store.insert_memories(
                connection, space, [(memory(number), unit_vector(rng, centres)) for number in range(count)]
            )
    yield (account_id, mine), (account_id, theirs), lambda: unit_vector(rng, centres)
    with database.transaction() as connection:
        connection.execute("DELETE FROM accounts WHERE id = %s", (account_id,))
        connection.execute("DELETE FROM users WHERE id = ANY(%s)", ([mine, theirs],))


def space_of(database, owner):
    with database.connection() as connection:
        return spaces.find(connection, SpaceKey(*owner))


@pytest.fixture
def by_codes(database, owners, monkeypatch):
    """The first user's space, with codes that its searches use."""
    monkeypatch.setattr(vector_codes, "EXACT_UP_TO", 0)
    space = space_of(database, owners[0])
    with database.connection() as connection:
        vector_codes.pack(connection, space.id, space.next_ordinal)
    return space


def search(database, space, vector, allowed=None, limit=20):
    with database.connection() as connection:
        return [ordinal for ordinal, _ in vector_search.nearest(connection, space, vector, limit, allowed)]


@pytest.mark.parametrize("every", [1, 2])
def test_codes_find_at_least_98_percent_of_the_exact_neighbours(database, owners, by_codes, every):
    allowed = None if every == 1 else np.arange(1, COUNT, every)
    shares = []
    for _ in range(40):
        vector = owners[2]()
        with database.connection() as connection:
            everything = vectors.search_exact(connection, by_codes.id, vector, COUNT)
        exact = [ordinal for ordinal, _ in everything if allowed is None or ordinal in allowed][:20]
        shares.append(len({*exact} & {*search(database, by_codes, vector, allowed)}) / 20)

    assert np.mean(shares) >= 0.98


def test_search_by_codes_sees_later_writes_and_closings(database, owners, by_codes):
    owner, vector, new = owners[0], owners[2](), memory(9999)
    store.write_memories(database, lambda texts: [vector], SpaceKey(*owner), [new])
    space = space_of(database, owner)
    with database.connection() as connection:
        ordinal = memories.read(connection, new.id, SpaceKey(*owner)).ordinal

    assert search(database, space, vector)[0] == ordinal
    with database.transaction() as connection:
        store.close_memories(connection, store.lock_space(connection, space.id), [new.id])
    assert ordinal not in search(database, space, vector)


def test_hits_are_ranked_and_belong_to_the_caller(database, owners):
    owner, other, _ = owners
    vector = np.random.default_rng(1).standard_normal(384).tolist()  # near none

    hits = recall(
        database, lambda texts: [vector for _ in texts], SpaceKey(*owner), Query("number 77 of lake", limit=5), NOW
    )
    in_conversation = recall(
        database,
        lambda texts: [vector for _ in texts],
        SpaceKey(*owner),
        Query("lake", 100, Filters(conversation_id="talk 3")),
    )

    assert hits[0].memory.text == "number 77 of lake"
    assert len(hits) == 5
    assert {hit.memory.user_id for hit in hits} == {owner[1]}
    assert {hit.memory.conversation_id for hit in in_conversation} == {"talk 3"}
    assert len(in_conversation) == 50
    assert recall(database, lambda texts: [vector], SpaceKey(owner[0], new_id("user")), Query("lake")) == []
    theirs = recall(
        database, lambda texts: [vector for _ in texts], SpaceKey(*other), Query("number 1999 of lake", limit=100)
    )
    assert "number 1999 of lake" not in {hit.memory.text for hit in theirs}


def test_ranking_a_small_space_whole_equals_ranking_its_candidates(database, owners, monkeypatch):
    owner, vector = owners[1], np.random.default_rng(2).standard_normal(384).tolist()
    special = [
        NewMemory(new_id("mem"), "a fact of lake", "Ada", NOW, conversation_id="talk 1", kind="fact"),
        NewMemory(new_id("mem"), "a note of lake", "", NOW),
        *(NewMemory(new_id("mem"), f"lake {n} said nowhere", "Ada", NOW + timedelta(hours=n)) for n in range(4)),
        NewMemory(
            new_id("mem"), "lake told within a talk", "Ben", NOW + timedelta(seconds=90), conversation_id="talk 0"
        ),
        NewMemory(new_id("mem"), "lake, taken back", "Ben", NOW + timedelta(seconds=95), conversation_id="talk 0"),
    ]
    store.write_memories(database, lambda texts: [vector for _ in texts], SpaceKey(*owner), special)
    with database.transaction() as connection:
        store.close_memories(connection, store.lock_space(connection, space_of(database, owner).id), [special[-1].id])

    def score_parts(filters):
        query = Query("what of lake 2 did Ada say in May 2026?", 200, filters, candidates=OTHERS * 2)
        hits = recall(database, lambda texts: [vector for _ in texts], SpaceKey(*owner), query, NOW)
        return {hit.memory.id: dict(hit.parts) for hit in hits}

    for filters in (Filters(), Filters(speaker="Ada"), Filters(conversation_id="talk 0"), Filters(kind="insight")):
        monkeypatch.setattr(recall_module, "MAX_RANKED_WHOLE", 0)
        expected = score_parts(filters)
        monkeypatch.setattr(recall_module, "MAX_RANKED_WHOLE", OTHERS * 2)
        assert score_parts(filters) == expected
        assert list(score_parts(filters)) == list(expected)
        assert special[-1].id not in expected
        assert bool(expected) == (filters.kind is None)


def test_top_ordinals_break_ties_by_ordinal():
    scores = np.array([0, 2, 1, 2, 0, 3, 1], dtype=float)

    assert top_ordinals(scores, None, 3) == [5, 1, 3]
    assert top_ordinals(scores, None, 99) == [5, 1, 3, 2, 6]
    assert top_ordinals(scores, np.array([0, 2, 6, 50]), 1) == [2]

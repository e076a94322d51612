"""Recall ranks the memories of spaces of any size, with and without a vector index, and applies filters."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.jobs.jobs import NewJob
from models.memory import memories, spaces, vector_indexes, vectors
from models.memory.memories import Filters, NewMemory
from models.platform.ids import new_id
from pipelines.memory import index_space, store
from pipelines.memory import recall as recall_module
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
            space = spaces.find_or_create(connection, account_id, user_id)
            store.insert_memories(
                connection, space, [(memory(number), unit_vector(rng, centres)) for number in range(count)]
            )
    yield (account_id, mine), (account_id, theirs), lambda: unit_vector(rng, centres)
    with database.transaction() as connection:
        connection.execute("DELETE FROM accounts WHERE id = %s", (account_id,))
        connection.execute("DELETE FROM users WHERE id = ANY(%s)", ([mine, theirs],))


def space_of(database, owner):
    with database.connection() as connection:
        return spaces.find(connection, *owner)


def run_index_job(begin, settle, space, **sizes):
    """Run the job that builds or drops a space's index, and return its result."""
    attempt = begin(NewJob("memory.index", "platform", {"space_id": space.id}))
    ending = index_space.run(attempt, **sizes)
    settle(attempt, ending)
    return ending.result


def search_index(database, space, vector, filters=None, limit=10):
    with database.transaction() as connection:
        return vectors.search_index(connection, space.id, vector, filters or Filters(), limit)


def test_index_finds_at_least_95_percent_of_the_exact_neighbours(database, owners, begin, settle):
    owner, _, random_vector = owners
    space = space_of(database, owner)

    assert run_index_job(begin, settle, space, most=COUNT - 1, fewest=10) == {"indexed": True}
    assert run_index_job(begin, settle, space, most=COUNT - 1, fewest=10) == {"indexed": True}  # idempotent

    shares = []
    for _ in range(40):
        vector = random_vector()
        with database.connection() as connection:
            exact = vectors.search_exact(connection, space.id, vector, 10)
        shares.append(
            len({ordinal for ordinal, _ in exact} & {o for o, _ in search_index(database, space, vector)}) / 10
        )
    assert np.mean(shares) >= 0.95


def test_planner_uses_the_index_of_an_indexed_space_only(database, owners, begin, settle):
    (mine, theirs, random_vector), plans = owners, {}
    run_index_job(begin, settle, space_of(database, mine), most=COUNT - 1, fewest=10)
    for owner, statement, indexed in ((mine, vectors.BY_INDEX, True), (theirs, vectors.EXACT, False)):
        parameters = {
            "space_id": space_of(database, owner).id,
            "vector": vectors.format_vector(random_vector()),
            "limit": 10,
        }
        with database.transaction() as connection:
            if indexed:
                connection.execute(vectors.PLANNER_SETTINGS, {"candidates": "200"})
            rows = connection.execute("EXPLAIN " + statement, parameters, prepare=False).fetchall()
        plans[owner] = "\n".join(row["QUERY PLAN"] for row in rows)

    assert vector_indexes.index_name(space_of(database, mine).id) in plans[mine]
    assert "Sort" not in plans[mine]
    assert vector_indexes.NAME not in plans[theirs]


def test_index_search_applies_filters(database, owners, begin, settle):
    owner, _, random_vector = owners
    space = space_of(database, owner)
    run_index_job(begin, settle, space, most=COUNT - 1, fewest=10)

    hits = search_index(database, space, random_vector(), Filters(speaker="Ben"), limit=50)

    assert len(hits) == 50
    assert all(ordinal % 2 == 1 for ordinal, _ in hits)


def test_index_search_sees_later_writes_and_closings(database, owners, begin, settle):
    owner, _, random_vector = owners
    run_index_job(begin, settle, space_of(database, owner), most=COUNT - 1, fewest=10)
    vector, new = random_vector(), memory(9999)
    store.write_memories(database, lambda texts: [vector], *owner, [new])
    space = space_of(database, owner)
    with database.connection() as connection:
        ordinal = memories.read(connection, new.id, *owner).ordinal

    assert search_index(database, space, vector)[0][0] == ordinal
    with database.transaction() as connection:
        store.close_memories(connection, store.lock_space(connection, space.id), [new.id])
    assert ordinal not in {each for each, _ in search_index(database, space, vector, limit=50)}


def test_hits_are_ranked_and_belong_to_the_caller(database, owners):
    owner, other, _ = owners
    vector = np.random.default_rng(1).standard_normal(384).tolist()  # near none

    hits = recall(database, lambda texts: [vector for _ in texts], *owner, Query("number 77 of lake", limit=5), NOW)
    in_conversation = recall(
        database, lambda texts: [vector for _ in texts], *owner, Query("lake", 100, Filters(conversation_id="talk 3"))
    )

    assert hits[0].memory.text == "number 77 of lake"
    assert len(hits) == 5
    assert {hit.memory.user_id for hit in hits} == {owner[1]}
    assert {hit.memory.conversation_id for hit in in_conversation} == {"talk 3"}
    assert len(in_conversation) == 50
    assert recall(database, lambda texts: [vector], owner[0], new_id("user"), Query("lake")) == []
    theirs = recall(database, lambda texts: [vector for _ in texts], *other, Query("number 1999 of lake", limit=100))
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
    store.write_memories(database, lambda texts: [vector for _ in texts], *owner, special)
    with database.transaction() as connection:
        store.close_memories(connection, store.lock_space(connection, space_of(database, owner).id), [special[-1].id])

    def score_parts(filters):
        query = Query("what of lake 2 did Ada say in May 2026?", 200, filters, candidates=OTHERS * 2)
        hits = recall(database, lambda texts: [vector for _ in texts], *owner, query, NOW)
        return {hit.memory.id: dict(hit.parts) for hit in hits}

    for filters in (Filters(), Filters(speaker="Ada"), Filters(conversation_id="talk 0"), Filters(kind="insight")):
        monkeypatch.setattr(recall_module, "MAX_RANKED_WHOLE", 0)
        expected = score_parts(filters)
        monkeypatch.setattr(recall_module, "MAX_RANKED_WHOLE", OTHERS * 2)
        assert score_parts(filters) == expected
        assert list(score_parts(filters)) == list(expected)
        assert special[-1].id not in expected
        assert bool(expected) == (filters.kind is None)


def test_index_of_a_shrunk_or_deleted_space_is_dropped(database, owners, begin, settle):
    owner = owners[0]
    space = space_of(database, owner)
    run_index_job(begin, settle, space, most=COUNT - 1, fewest=10)

    assert run_index_job(begin, settle, space, most=10 * COUNT, fewest=2 * COUNT) == {"indexed": False}
    assert space_of(database, owner).indexed_at is None

    with database.connection() as connection:
        vector_indexes.build(connection, space.id)
        connection.execute(
            "CREATE INDEX memory_vectors_of_999999999 ON memory_vectors USING hnsw (embedding halfvec_cosine_ops)"
            " WHERE space_id = 999999999 AND live"
        )
        assert vector_indexes.drop_orphans(connection) >= 1
        assert vector_indexes.is_valid(connection, space.id)
        vector_indexes.drop(connection, space.id)


def test_index_of_a_grown_space_is_requested_once(database, owners):
    owner = owners[0]
    with database.transaction() as connection:
        space = spaces.find(connection, *owner)
        connection.execute(
            "UPDATE memory_spaces SET indexed_at = NULL, index_asked_at = NULL WHERE id = %s", (space.id,)
        )
        requested = [spaces.request_index(connection, space.id, most=10, fewest=5) for _ in range(2)]
        spaces.set_indexed(connection, space.id, indexed=False)

    assert requested == [True, False]


def test_top_ordinals_break_ties_by_ordinal():
    scores = np.array([0, 2, 1, 2, 0, 3, 1], dtype=float)

    assert top_ordinals(scores, None, 3) == [5, 1, 3]
    assert top_ordinals(scores, None, 99) == [5, 1, 3, 2, 6]
    assert top_ordinals(scores, np.array([0, 2, 6, 50]), 1) == [2]

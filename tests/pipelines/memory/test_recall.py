"""Given a space of any size, when it is asked, then the best come first, whichever index answers, and filters hold."""

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


def unit(rng, centres):
    vector = centres[rng.integers(len(centres))] + rng.standard_normal(384) * 0.8
    return (vector / np.linalg.norm(vector)).tolist()


def memory(number):
    moment = NOW + timedelta(minutes=number)
    speaker, talk = ("Ada", "Ben")[number % 2], f"talk {number // 50}"
    return NewMemory(new_id("mem"), f"number {number} of lake", speaker, moment, conversation_id=talk)


@pytest.fixture(scope="module")
def people(database):
    """Two users of an account, with memories: (account, user) of each."""
    account_id, mine, theirs = new_id("acct"), new_id("user"), new_id("user")
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((TOPICS, 384))
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
        for user_id, count in ((mine, COUNT), (theirs, OTHERS)):
            connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
            space = spaces.find_or_create(connection, account_id, user_id)
            store.insert_memories(connection, space, [(memory(number), unit(rng, centres)) for number in range(count)])
    yield (account_id, mine), (account_id, theirs), lambda: unit(rng, centres)
    with database.transaction() as connection:
        connection.execute("DELETE FROM accounts WHERE id = %s", (account_id,))
        connection.execute("DELETE FROM users WHERE id = ANY(%s)", ([mine, theirs],))


def space_of(database, owner):
    with database.connection() as connection:
        return spaces.find(connection, *owner)


def run_job(begin, settle, space, **sizes):
    """The job that sees to a space's index."""
    attempt = begin(NewJob("memory.index", "platform", {"space_id": space.id}))
    ending = index_space.run(attempt, **sizes)
    settle(attempt, ending)
    return ending.result


def found(database, space, vector, filters=None, limit=10):
    with database.transaction() as connection:
        return vectors.search_index(connection, space.id, vector, filters or Filters(), limit)


def test_a_spaces_own_index_finds_what_looking_at_all_finds(database, people, begin, settle):
    owner, _, some_vector = people
    space = space_of(database, owner)

    assert run_job(begin, settle, space, most=COUNT - 1, fewest=10) == {"indexed": True}
    assert run_job(begin, settle, space, most=COUNT - 1, fewest=10) == {"indexed": True}  # again changes nothing

    shares = []
    for _ in range(40):
        vector = some_vector()
        with database.connection() as connection:
            exact = vectors.search_exact(connection, space.id, vector, 10)
        shares.append(len({ordinal for ordinal, _ in exact} & {o for o, _ in found(database, space, vector)}) / 10)
    assert np.mean(shares) >= 0.95


def test_the_index_is_used_where_it_stands_and_the_fence_holds_where_not(database, people, begin, settle):
    (mine, theirs, some_vector), plans = people, {}
    run_job(begin, settle, space_of(database, mine), most=COUNT - 1, fewest=10)
    for owner, statement, guided in ((mine, vectors.BY_INDEX, True), (theirs, vectors.EXACT, False)):
        told = {"space_id": space_of(database, owner).id, "vector": vectors.format_vector(some_vector()), "limit": 10}
        with database.transaction() as connection:
            if guided:
                connection.execute(vectors.PLANNER_SETTINGS, {"candidates": "200"})
            rows = connection.execute("EXPLAIN " + statement, told, prepare=False).fetchall()
        plans[owner] = "\n".join(row["QUERY PLAN"] for row in rows)

    assert vector_indexes.index_name(space_of(database, mine).id) in plans[mine]
    assert "Sort" not in plans[mine]
    assert vector_indexes.NAME not in plans[theirs]


def test_filters_hold_by_the_index_too(database, people, begin, settle):
    owner, _, some_vector = people
    space = space_of(database, owner)
    run_job(begin, settle, space, most=COUNT - 1, fewest=10)

    hits = found(database, space, some_vector(), Filters(speaker="Ben"), limit=50)

    assert len(hits) == 50
    assert all(ordinal % 2 == 1 for ordinal, _ in hits)


def test_a_search_by_the_index_sees_what_is_written_and_closed_after_it_was_built(database, people, begin, settle):
    owner, _, some_vector = people
    run_job(begin, settle, space_of(database, owner), most=COUNT - 1, fewest=10)
    vector, new = some_vector(), memory(9999)
    store.write_memories(database, lambda texts: [vector], *owner, [new])
    space = space_of(database, owner)
    with database.connection() as connection:
        ordinal = memories.read(connection, new.id, *owner).ordinal

    assert found(database, space, vector)[0][0] == ordinal
    with database.transaction() as connection:
        store.close_memories(connection, store.lock_space(connection, space.id), [new.id])
    assert ordinal not in {found for found, _ in found(database, space, vector, limit=50)}


def test_hits_are_scored_and_belong_to_the_one_who_asks(database, people):
    owner, other, _ = people
    vector = np.random.default_rng(1).standard_normal(384).tolist()  # near to none

    hits = recall(database, lambda texts: [vector for _ in texts], *owner, Query("number 77 of lake", limit=5), NOW)
    spoken = recall(
        database, lambda texts: [vector for _ in texts], *owner, Query("lake", 100, Filters(conversation_id="talk 3"))
    )

    assert hits[0].memory.text == "number 77 of lake"
    assert len(hits) == 5
    assert {hit.memory.user_id for hit in hits} == {owner[1]}
    assert {hit.memory.conversation_id for hit in spoken} == {"talk 3"}
    assert len(spoken) == 50
    assert recall(database, lambda texts: [vector], owner[0], new_id("user"), Query("lake")) == []
    theirs = recall(database, lambda texts: [vector for _ in texts], *other, Query("number 1999 of lake", limit=100))
    assert "number 1999 of lake" not in {hit.memory.text for hit in theirs}


def test_a_small_space_is_ranked_whole_as_if_all_had_been_found(database, people, monkeypatch):
    owner, vector = people[1], np.random.default_rng(2).standard_normal(384).tolist()
    odd = [
        NewMemory(new_id("mem"), "a fact of lake", "Ada", NOW, conversation_id="talk 1", kind="fact"),
        NewMemory(new_id("mem"), "a note of lake", "", NOW),
        *(NewMemory(new_id("mem"), f"lake {n} said nowhere", "Ada", NOW + timedelta(hours=n)) for n in range(4)),
        NewMemory(
            new_id("mem"), "lake told within a talk", "Ben", NOW + timedelta(seconds=90), conversation_id="talk 0"
        ),
        NewMemory(new_id("mem"), "lake, taken back", "Ben", NOW + timedelta(seconds=95), conversation_id="talk 0"),
    ]
    store.write_memories(database, lambda texts: [vector for _ in texts], *owner, odd)
    with database.transaction() as connection:
        store.close_memories(connection, store.lock_space(connection, space_of(database, owner).id), [odd[-1].id])

    def hits(filters):
        query = Query("what of lake 2 did Ada say in May 2026?", 200, filters, candidates=OTHERS * 2)
        found = recall(database, lambda texts: [vector for _ in texts], *owner, query, NOW)
        return {hit.memory.id: dict(hit.parts) for hit in found}

    for filters in (Filters(), Filters(speaker="Ada"), Filters(conversation_id="talk 0"), Filters(kind="insight")):
        monkeypatch.setattr(recall_module, "MAX_RANKED_WHOLE", 0)
        chosen = hits(filters)
        monkeypatch.setattr(recall_module, "MAX_RANKED_WHOLE", OTHERS * 2)
        assert hits(filters) == chosen
        assert list(hits(filters)) == list(chosen)
        assert odd[-1].id not in chosen
        assert bool(chosen) == (filters.kind is None)


def test_an_index_goes_when_its_space_shrinks_and_when_it_is_gone(database, people, begin, settle):
    owner = people[0]
    space = space_of(database, owner)
    run_job(begin, settle, space, most=COUNT - 1, fewest=10)

    assert run_job(begin, settle, space, most=10 * COUNT, fewest=2 * COUNT) == {"indexed": False}
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


def test_a_space_that_grows_asks_for_its_index_once(database, people):
    owner = people[0]
    with database.transaction() as connection:
        space = spaces.find(connection, *owner)
        connection.execute(
            "UPDATE memory_spaces SET indexed_at = NULL, index_asked_at = NULL WHERE id = %s", (space.id,)
        )
        asked = [spaces.request_index(connection, space.id, most=10, fewest=5) for _ in range(2)]
        spaces.set_indexed(connection, space.id, indexed=False)

    assert asked == [True, False]


def test_the_best_by_weight_are_taken_ties_by_age():
    weights = np.array([0, 2, 1, 2, 0, 3, 1], dtype=float)

    assert top_ordinals(weights, None, 3) == [5, 1, 3]
    assert top_ordinals(weights, None, 99) == [5, 1, 3, 2, 6]
    assert top_ordinals(weights, np.array([0, 2, 6, 50]), 1) == [2]

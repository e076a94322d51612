"""Given memories that come, change, close and go, then postings, counts and speakers are those of a naive model."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.memory import memories, postings, spaces, vectors
from models.memory.memories import MemoryUpdate, NewMemory
from models.platform.ids import new_id
from pipelines.memory import change_memory, forget_memories, store, terms

WORDS = ["lake", "canoe", "winter", "garden", "piano", "rain?"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
SPEAKERS = st.sampled_from(["Ada", "Ben", ""])
NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def owner(database):
    """The ids of an account and of a user who belongs to it."""
    account_id, user_id = new_id("acct"), new_id("user")
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
    yield account_id, user_id
    with database.transaction() as connection:
        connection.execute("DELETE FROM accounts WHERE id = %s", (account_id,))
        connection.execute("DELETE FROM users WHERE id = %s", (user_id,))


def vector_of(text):
    """Some vector."""
    return [float(len(text))] + [1.0] * 383


def machine(database, owner):
    """What can happen to a space, next to what should be in it: id → text, speaker, whether it is closed."""

    class Space(RuleBasedStateMachine):
        @initialize()
        def begin(self):
            with database.transaction() as connection:
                connection.execute("DELETE FROM memory_spaces WHERE account_id = %s", (owner[0],))
            self.known: dict[str, tuple[str, str, bool]] = {}

        def some(self, data, closed=None):
            ids = [key for key, (_, _, is_closed) in self.known.items() if closed in (None, is_closed)]
            return data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=3, unique=True)) if ids else []

        def locked(self, connection):
            space = spaces.find(connection, *owner)
            return store.lock_space(connection, space.id)

        @rule(said=st.lists(st.tuples(TEXTS, SPEAKERS), min_size=1, max_size=4))
        def write(self, said):
            news = [NewMemory(new_id("mem"), text, speaker, NOW, unique_key=new_id("key")) for text, speaker in said]
            for _ in range(2):  # again changes nothing
                store.write_memories(database, lambda texts: [vector_of(text) for text in texts], *owner, news)
            self.known |= {new.id: (new.text, new.speaker, False) for new in news}

        @precondition(lambda self: self.known)
        @rule(data=st.data())
        def forget(self, data):
            gone = self.some(data)
            with database.transaction() as connection:
                forget_memories.delete_memories(connection, self.locked(connection), gone)
            self.known = {key: value for key, value in self.known.items() if key not in gone}

        @precondition(lambda self: self.known)
        @rule(data=st.data(), text=TEXTS, speaker=SPEAKERS)
        def change(self, data, text, speaker):
            memory_id = self.some(data)[0]
            with database.transaction() as connection:
                memory = memories.read(connection, memory_id, *owner)
                change = MemoryUpdate(text=text, speaker=speaker)
                change_memory.update_memory(connection, self.locked(connection), memory, change, [vector_of(text)])
            self.known[memory_id] = (text, speaker, self.known[memory_id][2])

        @precondition(lambda self: self.known)
        @rule(data=st.data(), closes=st.booleans())
        def close_or_reopen(self, data, closes):
            chosen = self.some(data)
            with database.transaction() as connection:
                (store.close_memories if closes else store.reopen_memories)(connection, self.locked(connection), chosen)
            self.known |= {key: (*self.known[key][:2], closes) for key in chosen}

        @rule()
        def die_before_the_commit(self):
            with pytest.raises(ZeroDivisionError), database.transaction() as connection:  # noqa: PT012
                space = store.lock_space(connection, spaces.find_or_create(connection, *owner).id)
                new = NewMemory(new_id("mem"), "lake", "Ada", NOW)
                store.insert_memories(connection, space, [(new, vector_of(new.text))])
                raise ZeroDivisionError

        @invariant()
        def holds(self):
            with database.connection() as connection:
                check(connection, owner, self.known)

    return Space


def check(connection, owner, known):
    """Compare all that is stored with what is known."""
    space = spaces.find(connection, *owner)
    if space is None:
        assert not known
        return
    live = {key: value for key, value in known.items() if not value[2]}
    rows = {
        memory.id: memory for memory in memories.page(connection, *owner, memories.Filters(), closed=True, limit=999)
    }
    assert set(rows) == set(known)
    assert space.live == len(live)
    names = [speaker for _, speaker, _ in live.values() if speaker]
    assert set(spaces.speakers(connection, space.id)) == set(names)
    expected: dict[str, dict[int, float]] = {}
    for key, (text, _, _) in live.items():
        for term, weight in terms.term_weights(text).items():
            expected.setdefault(term, {})[rows[key].ordinal] = pytest.approx(weight, abs=1e-3)
    stored = connection.execute("SELECT term FROM memory_postings WHERE space_id = %s", (space.id,)).fetchall()
    found = postings.read(connection, space.id, [row["term"] for row in stored])
    assert {
        term: dict(zip(having.ordinals.tolist(), having.weights.tolist(), strict=True))
        for term, having in found.items()
    } == expected
    visible = vectors.search_exact(connection, space.id, vector_of("x"), 999)
    assert {ordinal for ordinal, _ in visible} == {rows[key].ordinal for key in live}


def test_postings_and_counts_are_those_of_a_naive_model(database, owner):
    case = machine(database, owner).TestCase
    case.settings = settings(
        max_examples=15,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    case("runTest").runTest()


def test_entries_of_many_blocks_keep_ordinals_and_weights(database, owner):
    with database.transaction() as connection:
        space = spaces.find_or_create(connection, *owner)
        ordinals = [0, 1, postings.BLOCK - 1, postings.BLOCK, 5 * postings.BLOCK + 7]
        postings.add(connection, space.id, {ordinal: {"lake": 0.25, f"w{ordinal}": 2.2} for ordinal in ordinals})
        postings.add(connection, space.id, {2: {"lake": 1.5}})
        postings.remove(connection, space.id, {1: ["lake", "w1", "never there"]})

        found = postings.read(connection, space.id, ["lake", "w0", "w1", "nobody's"])

    having = dict(zip(found["lake"].ordinals.tolist(), found["lake"].weights.tolist(), strict=True))
    assert having == {0: 0.25, 2: 1.5, ordinals[2]: 0.25, ordinals[3]: 0.25, ordinals[4]: 0.25}
    assert set(found) == {"lake", "w0"}
    assert found["w0"].weights[0] == pytest.approx(2.2, abs=1e-3)

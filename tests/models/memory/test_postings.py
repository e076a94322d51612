"""Compare postings, counts and speakers with a model of the space."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.memory import memories, postings, spaces, vectors
from models.memory.memories import MemoryUpdate, NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from pipelines.memory import change_memory, forget_memories, store, terms

WORDS = ["lake", "canoe", "winter", "garden", "piano", "rain?"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
SPEAKERS = st.sampled_from(["Ada", "Ben", ""])
NOW = datetime(2026, 5, 4, tzinfo=UTC)


def vector_of(text):
    """Return an arbitrary vector for a text."""
    return [float(len(text))] + [1.0] * 383


def machine(database, owner):
    """Build a state machine that changes a space and a model of it: id → text, speaker, whether it is closed."""

    class Space(RuleBasedStateMachine):
        @initialize()
        def begin(self):
            with database.transaction() as connection:
                connection.execute("DELETE FROM memory_spaces WHERE account_id = %s", (owner[0],))
            self.model: dict[str, tuple[str, str, bool]] = {}

        def draw_ids(self, data, closed=None):
            ids = [key for key, (_, _, is_closed) in self.model.items() if closed in (None, is_closed)]
            return data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=3, unique=True)) if ids else []

        def lock(self, connection):
            space = spaces.find(connection, SpaceKey(*owner))
            return store.lock_space(connection, space.id)

        @rule(spoken=st.lists(st.tuples(TEXTS, SPEAKERS), min_size=1, max_size=4))
        def write(self, spoken):
            new_memories = [
                NewMemory(new_id("mem"), text, speaker, NOW, unique_key=new_id("key")) for text, speaker in spoken
            ]
            for _ in range(2):  # the second time changes nothing
                store.write_memories(
                    database, lambda texts: [vector_of(text) for text in texts], SpaceKey(*owner), new_memories
                )
            self.model |= {new.id: (new.text, new.speaker, False) for new in new_memories}

        @precondition(lambda self: self.model)
        @rule(data=st.data())
        def forget(self, data):
            deleted_ids = self.draw_ids(data)
            with database.transaction() as connection:
                forget_memories.delete_memories(connection, self.lock(connection), deleted_ids)
            self.model = {key: value for key, value in self.model.items() if key not in deleted_ids}

        @precondition(lambda self: self.model)
        @rule(data=st.data(), text=TEXTS, speaker=SPEAKERS)
        def change(self, data, text, speaker):
            memory_id = self.draw_ids(data)[0]
            with database.transaction() as connection:
                memory = memories.read(connection, memory_id, SpaceKey(*owner))
                change = MemoryUpdate(text=text, speaker=speaker)
                change_memory.update_memory(connection, self.lock(connection), memory, change, [vector_of(text)])
            self.model[memory_id] = (text, speaker, self.model[memory_id][2])

        @precondition(lambda self: self.model)
        @rule(data=st.data(), closes=st.booleans())
        def close_or_reopen(self, data, closes):
            ids = self.draw_ids(data)
            with database.transaction() as connection:
                (store.close_memories if closes else store.reopen_memories)(connection, self.lock(connection), ids)
            self.model |= {key: (*self.model[key][:2], closes) for key in ids}

        @rule()
        def roll_back(self):
            with pytest.raises(ZeroDivisionError), database.transaction() as connection:  # noqa: PT012
                space = store.lock_space(connection, spaces.find_or_create(connection, SpaceKey(*owner)).id)
                new = NewMemory(new_id("mem"), "lake", "Ada", NOW)
                store.insert_memories(connection, space, [(new, vector_of(new.text))])
                raise ZeroDivisionError

        @invariant()
        def equals_the_model(self):
            with database.connection() as connection:
                check(connection, owner, self.model)

    return Space


def check(connection, owner, model):
    """Compare the stored rows with the model."""
    space = spaces.find(connection, SpaceKey(*owner))
    if space is None:
        assert not model
        return
    live = {key: value for key, value in model.items() if not value[2]}
    rows = {
        memory.id: memory
        for memory in memories.page(connection, SpaceKey(*owner), memories.Filters(), closed=True, limit=999)
    }
    assert set(rows) == set(model)
    assert space.live == len(live)
    names = [speaker for _, speaker, _ in live.values() if speaker]
    assert set(spaces.speakers(connection, space.id)) == set(names)
    expected: dict[str, dict[int, float]] = {}
    for key, (text, _, _) in live.items():
        for term, weight in terms.term_weights(text).items():
            expected.setdefault(term, {})[rows[key].ordinal] = pytest.approx(weight, abs=1e-3)
    stored = connection.execute("SELECT term FROM memory_postings WHERE space_id = %s", (space.id,)).fetchall()
    read_postings = postings.read(connection, space.id, [row["term"] for row in stored])
    assert {
        term: dict(zip(entry.ordinals.tolist(), entry.weights.tolist(), strict=True))
        for term, entry in read_postings.items()
    } == expected
    visible = vectors.search_exact(connection, space.id, vector_of("x"), 999)
    assert {ordinal for ordinal, _ in visible} == {rows[key].ordinal for key in live}


def test_postings_and_counts_equal_the_model(database, owner):
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
        space = spaces.find_or_create(connection, SpaceKey(*owner))
        ordinals = [0, 1, postings.BLOCK - 1, postings.BLOCK, 5 * postings.BLOCK + 7]
        postings.add(connection, space.id, {ordinal: {"lake": 0.25, f"w{ordinal}": 2.2} for ordinal in ordinals})
        postings.add(connection, space.id, {2: {"lake": 1.5}})
        postings.remove(connection, space.id, {1: ["lake", "w1", "never there"]})

        read_postings = postings.read(connection, space.id, ["lake", "w0", "w1", "nobody's"])

    weights = dict(zip(read_postings["lake"].ordinals.tolist(), read_postings["lake"].weights.tolist(), strict=True))
    assert weights == {0: 0.25, 2: 1.5, ordinals[2]: 0.25, ordinals[3]: 0.25, ordinals[4]: 0.25}
    assert set(read_postings) == {"lake", "w0"}
    assert read_postings["w0"].weights[0] == pytest.approx(2.2, abs=1e-3)

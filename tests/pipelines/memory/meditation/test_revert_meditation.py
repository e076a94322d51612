"""Given any memories, when they are thought over and that is taken back, then each row is as it was; what came later
or was changed by somebody meanwhile is as they left it. Several are taken back the last one first."""

from random import Random

import pytest

from models.memory import meditation_changes
from models.memory.spaces import find
from models.platform.errors import Conflict
from pipelines.memory import forget_memories, store

PEOPLE, PLACES, THINGS = ("Ana", "Ben", "I"), ("Lisbon", "Porto", "Graz"), ("sushi", "old maps", "cold rain", "jazz")


def talk(random, mind, day):
    """Things said and facts, many of them more than once."""
    for offset in range(random.randint(4, 9)):
        thing, number = random.choice(THINGS), random.randint(1, 3)
        said = random.choice(
            [
                f"I like {thing} a lot, and have {number} books about it.",
                f"I really like {thing} a lot, and have {number} books about it!",
                f"Yesterday we talked about {thing} for {number} hours.",
                f"What do you think about {thing} and {number} friends?",
                "Sounds good.",
            ]
        )
        speaker, conversation = random.choice(["user", "assistant"]), f"talk {day}"
        mind.hear(
            *[said] * random.randint(1, 2), day=day + offset, step=0.1, speaker=speaker, conversation_id=conversation
        )
    for offset in range(random.randint(1, 4)):
        mind.hear(
            f"{random.choice(PEOPLE)} lives in {random.choice(PLACES)}.", day=day + offset, kind="fact", speaker=""
        )


def use(random, mind):
    """Recall has used some of them."""
    with mind.database.transaction() as connection:
        for row in mind.rows("SELECT id FROM memories WHERE account_id = %(account_id)s ORDER BY id"):
            if random.random() < 0.3:
                used = (random.randint(1, 9), random.randint(0, 900), row["id"])
                connection.execute(
                    "UPDATE memories SET recalled = recalled + %s, recalled_at = now() - make_interval(days => %s)"
                    " WHERE id = %s",
                    used,
                )


def by_id(state):
    return {row["id"]: row for row in state["memories"]}


@pytest.mark.parametrize("seed", range(6))
def test_any_meditation_is_taken_back_row_by_row(mind, seed):
    random = Random(seed)
    talk(random, mind, 0)
    use(random, mind)
    first = mind.state()
    one, result = mind.meditate()
    assert result["outcome"] in ("applied", "would_harm", "nothing_to_do")
    between = mind.state()
    talk(random, mind, 30)
    second = mind.state()
    two, again = mind.meditate()
    assert any(each["outcome"] == "applied" for each in (result, again))

    if again["outcome"] == "applied":
        mind.revert(two)
    assert mind.state() == second
    if result["outcome"] == "applied":
        mind.revert(one)

    restored = by_id(mind.state())
    assert {id_: restored[id_] for id_ in by_id(first)} == by_id(first)
    assert {id_: row for id_, row in restored.items() if id_ not in by_id(between)} == {
        id_: row for id_, row in by_id(second).items() if id_ not in by_id(between)
    }


@pytest.mark.parametrize("seed", range(6, 9))
def test_what_somebody_has_changed_meanwhile_is_as_they_left_it(mind, seed):
    random = Random(seed)
    talk(random, mind, 0)
    use(random, mind)
    before = by_id(mind.state())
    meditation_id, result = mind.meditate()
    if result["outcome"] != "applied":
        return
    theirs, deleted = {}, set()
    for id_ in sorted(before):
        deed, found = random.choice(["weigh", "delete", "reopen", None, None, None]), by_id(mind.state())[id_]
        if deed is not None:
            DEEDS[deed](mind, id_)
        if deed == "delete":
            deleted.add(id_)
        elif (left := by_id(mind.state())[id_]) != found:
            theirs[id_] = left
    changes = {change.memory_id: change for change in mind.changes(meditation_id)}

    mind.revert(meditation_id)

    after = by_id(mind.state())
    assert deleted.isdisjoint(after)
    for id_, row in after.items():
        change = changes.get(id_)
        if change is None:
            assert row == theirs.get(id_, before[id_])
        elif id_ in theirs and change.action == "weighed":
            assert row["importance"] == theirs[id_]["importance"]
        elif id_ in theirs and row["closed_at"] is None:
            assert row["text"] == before[id_]["text"]
        elif change.action == "closed" and (change.after or {})["closed_by"] in deleted:
            assert row["closed_at"] is not None
        else:
            assert row == before[id_]


def test_who_forgets_a_memory_forgets_what_repeated_it(mind):
    told, _ = mind.hear("I am allergic to walnuts.", "I am really allergic to walnuts!")[::-1], mind.meditate()
    assert len(mind.live()) == 1

    DEEDS["delete"](mind, told[0])

    assert mind.state()["memories"] == []


def test_a_meditation_that_is_too_old_stays_as_it_is(mind):
    # Given a meditation of a hundred days ago, whose changes are forgotten
    mind.hear("I am allergic to walnuts.", "I am really allergic to walnuts!")
    meditation_id, _ = mind.meditate()
    with mind.database.transaction() as connection:
        age = "UPDATE meditations SET created_at = now() - interval '100 days' WHERE id = %s"
        connection.execute(age, (meditation_id,))
        while meditation_changes.prune(connection, 100):
            pass
    assert mind.changes(meditation_id) == []
    before = mind.state()

    # When somebody wants to take it back, then they are told that it is too late, and nothing has changed
    with pytest.raises(Conflict) as refused:
        mind.revert(meditation_id)
    assert refused.value.code == "too_old"
    assert mind.state() == before


def weigh(mind, memory_id):
    with mind.database.transaction() as connection:
        connection.execute("UPDATE memories SET importance = 0.77, updated_at = now() WHERE id = %s", (memory_id,))


def within(mind, deed):
    with mind.database.transaction() as connection:
        space = find(connection, mind.account_id, mind.user_id)
        deed(connection, store.lock_space(connection, space.id))


DEEDS = {
    "weigh": weigh,
    "delete": lambda mind, id_: within(
        mind, lambda connection, space: forget_memories.delete_memories(connection, space, [id_])
    ),
    "reopen": lambda mind, id_: within(mind, lambda connection, space: store.reopen_memories(connection, space, [id_])),
}

"""Reverting random meditations, the last one first, restores every row but those that were changed or deleted since."""

from random import Random

import pytest

from models.memory import meditation_changes
from models.memory.spaces import SpaceKey, find
from models.platform.errors import Conflict
from pipelines.memory import forget_memories, store, terms

PEOPLE, PLACES, THINGS = ("Ana", "Ben", "I"), ("Lisbon", "Porto", "Graz"), ("sushi", "old maps", "cold rain", "jazz")


def write_random(random, user, day):
    """Write random episodes and facts, many of them more than once."""
    for offset in range(random.randint(4, 9)):
        thing, number = random.choice(THINGS), random.randint(1, 3)
        text = random.choice(
            [
                f"I like {thing} a lot, and have {number} books about it.",
                f"I really like {thing} a lot, and have {number} books about it!",
                f"Yesterday we talked about {thing} for {number} hours.",
                f"What do you think about {thing} and {number} friends?",
                "Sounds good.",
            ]
        )
        speaker, conversation = random.choice(["user", "assistant"]), f"talk {day}"
        user.write(
            *[text] * random.randint(1, 2), day=day + offset, step=0.1, speaker=speaker, conversation_id=conversation
        )
    for offset in range(random.randint(1, 4)):
        user.write(
            f"{random.choice(PEOPLE)} lives in {random.choice(PLACES)}.", day=day + offset, kind="fact", speaker=""
        )


def mark_recalled(random, user):
    """Mark random memories as recalled."""
    with user.database.transaction() as connection:
        for row in user.fetch("SELECT id FROM memories WHERE account_id = %(account_id)s ORDER BY id"):
            if random.random() < 0.3:
                parameters = (random.randint(1, 9), random.randint(0, 900), row["id"])
                connection.execute(
                    "UPDATE memories SET recalled = recalled + %s, recalled_at = now() - make_interval(days => %s)"
                    " WHERE id = %s",
                    parameters,
                )


def by_id(state):
    return {row["id"]: row for row in state["memories"]}


@pytest.mark.parametrize("seed", range(6))
def test_random_meditations_are_reverted_row_by_row(user, seed):
    random = Random(seed)
    write_random(random, user, 0)
    mark_recalled(random, user)
    first = user.state()
    first_id, result = user.meditate()
    assert result["outcome"] in ("applied", "would_harm", "nothing_to_do")
    between = user.state()
    write_random(random, user, 30)
    second = user.state()
    second_id, second_result = user.meditate()
    assert any(each["outcome"] == "applied" for each in (result, second_result))

    if second_result["outcome"] == "applied":
        user.revert(second_id)
    assert user.state() == second
    if result["outcome"] == "applied":
        user.revert(first_id)

    restored = by_id(user.state())
    assert {id_: restored[id_] for id_ in by_id(first)} == by_id(first)
    assert {id_: row for id_, row in restored.items() if id_ not in by_id(between)} == {
        id_: row for id_, row in by_id(second).items() if id_ not in by_id(between)
    }


@pytest.mark.parametrize("seed", range(6, 9))
def test_later_changes_survive_the_revert(user, seed):
    random = Random(seed)
    write_random(random, user, 0)
    mark_recalled(random, user)
    before = by_id(user.state())
    meditation_id, result = user.meditate()
    assert result["outcome"] == "applied"
    changed, deleted = {}, set()
    for id_ in sorted(before):
        action, row = random.choice(["weigh", "delete", "reopen", None, None, None]), by_id(user.state())[id_]
        if action is not None:
            ACTIONS[action](user, id_)
        if action == "delete":
            deleted.add(id_)
        elif (row_after := by_id(user.state())[id_]) != row:
            changed[id_] = row_after
    changes = {change.memory_id: change for change in user.changes(meditation_id)}

    user.revert(meditation_id)

    after = by_id(user.state())
    assert deleted.isdisjoint(after)
    for id_, row in after.items():
        change = changes.get(id_)
        if change is None:
            assert row == changed.get(id_, before[id_])
        elif id_ in changed and change.action == "weighed":
            assert row["importance"] == changed[id_]["importance"]
        elif id_ in changed and row["closed_at"] is None:
            assert row["text"] == before[id_]["text"]
        elif change.action == "closed" and (change.after or {})["closed_by"] in deleted:
            assert row["closed_at"] is not None
        else:
            assert row == before[id_]


def test_closed_duplicates_are_deleted_with_their_memory(user):
    ids, _ = user.write("I am allergic to walnuts.", "I am really allergic to walnuts!")[::-1], user.meditate()
    assert len(user.live_texts()) == 1

    ACTIONS["delete"](user, ids[0])

    assert user.state()["memories"] == []


def test_texts_to_reopen_are_analysed_before_the_lock(user, monkeypatch):
    # Given a meditation that closed a memory
    user.write("I am allergic to walnuts.", "I am really allergic to walnuts!")
    meditation_id, _ = user.meditate()

    # When it is reverted
    unlocked, weigh = [], terms.term_weights

    def term_weights(*arguments):
        with user.database.transaction() as connection:
            query = "SELECT id FROM memory_spaces WHERE user_id = %s FOR UPDATE SKIP LOCKED"
            unlocked.append(connection.execute(query, (user.user_id,)).fetchone() is not None)
        return weigh(*arguments)

    monkeypatch.setattr(terms, "term_weights", term_weights)
    user.revert(meditation_id)

    # Then its text was analysed once, while others could change the space
    assert unlocked == [True]


def test_meditation_older_than_its_records_cannot_be_reverted(user):
    # Given a meditation of 100 days ago, whose change records were pruned
    user.write("I am allergic to walnuts.", "I am really allergic to walnuts!")
    meditation_id, _ = user.meditate()
    with user.database.transaction() as connection:
        age = "UPDATE meditations SET created_at = now() - interval '100 days' WHERE id = %s"
        connection.execute(age, (meditation_id,))
        while meditation_changes.prune(connection, 100):
            pass
    assert user.changes(meditation_id) == []
    before = user.state()

    # When it is to be reverted, then the request is refused and nothing changes
    with pytest.raises(Conflict) as error:
        user.revert(meditation_id)
    assert error.value.code == "too_old"
    assert user.state() == before


def set_importance(user, memory_id):
    with user.database.transaction() as connection:
        connection.execute("UPDATE memories SET importance = 0.77, updated_at = now() WHERE id = %s", (memory_id,))


def with_locked_space(user, action):
    with user.database.transaction() as connection:
        space = find(connection, SpaceKey(user.account_id, user.user_id))
        action(connection, store.lock_space(connection, space.id))


ACTIONS = {
    "weigh": set_importance,
    "delete": lambda user, id_: with_locked_space(
        user, lambda connection, space: forget_memories.delete_memories(connection, space, [id_])
    ),
    "reopen": lambda user, id_: with_locked_space(
        user, lambda connection, space: store.reopen_memories(connection, space, [id_])
    ),
}

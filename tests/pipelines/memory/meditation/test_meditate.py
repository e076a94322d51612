"""Given a user's memories, when they are thought over, then what repeats or no longer holds is closed in favour of what
stands for it, once, whatever dies; and all of it can be taken back, row by row."""

import pytest

from models.jobs.cancellation import cancel
from models.platform.errors import Conflict, NotFound
from pipelines.memory.meditation import apply, meditate, revert_meditation
from pipelines.memory.meditation.probes import RecallEvaluator

REPEATED = ("I like hiking in the mountains.", "I really like hiking in the mountains!")
MOVED = ("Ana lives in Lisbon.", "Ana lives in Porto.")


@pytest.fixture
def full(mind):
    """A mind with something to find in it."""
    mind.hear(*REPEATED, "My sister Clara teaches chemistry in Graz.", "I went running.", "I went running.")
    mind.hear(*MOVED, kind="fact", speaker="")
    return mind


def test_what_repeats_or_no_longer_holds_is_closed_and_told(full):
    meditation_id, result = full.meditate()

    assert result["outcome"] == "applied"
    assert (result["report"]["merged"], result["report"]["contradicted"]) == (1, 1)
    recall = result["report"]["recall"]
    assert recall["probes"] > 0
    assert recall["after"] >= recall["before"]
    assert {REPEATED[0], MOVED[0]}.isdisjoint(full.live())
    assert {REPEATED[1], MOVED[1], "I went running."} <= full.live()
    closed = {change.reason: change for change in full.changes(meditation_id)}
    assert set(closed) == {"repeats", "contradicted"}
    words = str([(change.before, change.after, change.reason) for change in closed.values()])
    assert "Lisbon" not in words
    assert "hiking" not in words


def test_meditating_again_finds_nothing_to_do(full):
    full.meditate()
    before = full.state()

    _, result = full.meditate()

    assert result["outcome"] == "nothing_to_do"
    assert full.state() == before


def test_a_mind_with_nothing_in_it(mind):
    _, result = mind.meditate()

    assert result["outcome"] == "nothing_to_do"


def test_revert_is_the_state_before_row_by_row_and_again_changes_nothing(full):
    before = full.state()
    meditation_id, _ = full.meditate()
    assert full.state() != before

    first = full.revert(meditation_id)

    assert full.state() == before
    assert first.report["reverted"] == {"undone": 2, "left": 0}
    assert all(change.reverted for change in full.changes(meditation_id))
    assert full.revert(meditation_id) == first
    assert full.state() == before


def test_revert_leaves_later_turns_and_what_somebody_has_changed_since(full):
    meditation_id, _ = full.meditate()
    (later,) = full.hear("Something new.", day=30)
    with full.database.transaction() as connection:  # what stood for the first is deleted
        connection.execute("DELETE FROM memories WHERE text = %s AND account_id = %s", (REPEATED[1], full.account_id))

    reverted = full.revert(meditation_id)

    assert reverted.report["reverted"] == {"undone": 1, "left": 1}
    assert MOVED[0] in full.live()
    assert "Something new." in full.live()
    assert REPEATED[0] not in full.live()
    assert later in {row["id"] for row in full.state()["memories"]}


def test_weights_are_reverted_but_for_those_that_were_set_since(mind):
    ids = mind.hear("I own a red bicycle.", "The office is near the river.")
    with mind.database.transaction() as connection:
        connection.execute("UPDATE memories SET recalled = 7, recalled_at = now() WHERE id = ANY(%s)", (ids,))
    before = mind.state()
    meditation_id, result = mind.meditate()
    assert result["report"]["weighed"] == 2
    with mind.database.transaction() as connection:
        connection.execute("UPDATE memories SET importance = 0.9 WHERE id = %s", (ids[1],))

    mind.revert(meditation_id)

    weights = {row["id"]: row["importance"] for row in mind.state()["memories"]}
    assert weights == {ids[0]: before["memories"][0]["importance"], ids[1]: pytest.approx(0.9)}


def test_what_changed_after_the_look_is_left_alone(full, monkeypatch):
    """Somebody corrects a memory while the meditation plans to close it."""
    plan = meditate.make_plan

    def planned_late(*given):
        planned = plan(*given)
        with full.database.transaction() as connection:
            connection.execute(
                "UPDATE memories SET text = 'Ana lives in Rome.', updated_at = now() WHERE text = %s", (MOVED[0],)
            )
        return planned

    monkeypatch.setattr(meditate, "make_plan", planned_late)
    _, result = full.meditate()

    assert result["report"]["contradicted"] == 0
    assert result["report"]["left_alone"] == 1
    assert "Ana lives in Rome." in full.live()


def test_what_would_lower_recall_is_not_applied_and_says_so(full, monkeypatch):
    measured = iter([0.9, 0.8])
    monkeypatch.setattr(RecallEvaluator, "evaluate", lambda self, connection: next(measured))
    before = full.state()

    meditation_id, result = full.meditate()

    assert result["outcome"] == "would_harm"
    assert (result["report"]["recall"]["before"], result["report"]["recall"]["after"]) == (0.9, 0.8)
    assert full.state() == before
    assert full.changes(meditation_id) == []
    with pytest.raises(Conflict):
        full.revert(meditation_id)


class Killed(Exception):
    """The process is gone."""


@pytest.mark.parametrize("where", ["analyse", "make_plan", "build_probes", "apply_plan", "_complete"])
def test_a_worker_that_dies_before_a_step_loses_nothing_and_does_nothing_twice(full, monkeypatch, where):
    meditation_id, attempt = full.begin()
    with monkeypatch.context() as patch:
        patch.setattr(meditate, where, die)
        with pytest.raises(Killed):
            full.run(attempt)

    again = full.attempt(attempt.job.id)
    ending = full.run(again)
    full.settle(again, ending)

    assert ending.result["outcome"] == "applied"
    assert [change.reason for change in full.changes(meditation_id)] == ["repeats", "contradicted"]


@pytest.mark.parametrize(
    "where", ["store.close_memories", "meditation_changes.set_replacements", "meditation_changes.record_closed"]
)
def test_a_death_between_two_changes_leaves_none_of_them(full, monkeypatch, where):
    before = full.state()
    meditation_id, attempt = full.begin()
    with monkeypatch.context() as patch:
        module, name = where.split(".")
        patch.setattr(getattr(apply, module), name, die)
        with pytest.raises(Killed):
            full.run(attempt)

    assert full.state() == before
    assert full.changes(meditation_id) == []


def die(*_, **__):
    raise Killed


def test_a_zombie_that_wakes_up_applies_nothing_more(full):
    """Its job went to another worker, which has applied; it still holds its own plan."""
    _, attempt = full.begin()
    zombie = full.attempt(attempt.job.id)
    second = full.attempt(attempt.job.id)
    full.settle(second, full.run(second))
    after = full.state()

    full.run(zombie)

    assert full.state() == after


def test_one_unfinished_meditation_at_a_time(full):
    first, attempt = full.begin()

    assert full.start().id == first

    full.settle(attempt, full.run(attempt))
    assert full.start().id != first


def test_a_cancelled_meditation_makes_room_for_the_next(full):
    """It never began, so that no worker could say so."""
    first = full.start()
    with full.database.transaction() as connection:
        cancel(connection, first.job_id, full.account_id)

    second = full.start()

    assert second.id != first.id
    assert full.read(first.id).status == "cancelled"


def test_what_an_operator_puts_back_to_work_goes_on(full):
    meditation_id, attempt = full.begin()
    full.settle(attempt, meditate.end(attempt, "dead", {"code": "server_error", "message": "x"}))
    assert full.read(meditation_id).status == "failed"

    again = full.attempt(attempt.job.id)
    full.settle(again, full.run(again))

    assert full.read(meditation_id).outcome == "applied"


def test_nobody_reverts_what_is_another_ones(full):
    meditation_id, _ = full.meditate()

    with pytest.raises(NotFound):
        revert_meditation.revert(full.database, meditation_id, full.account_id, "user_somebody")

"""A meditation closes duplicates and contradicted facts once, also after crashes, and can be reverted row by row."""

import pytest

from models.jobs.cancellation import cancel
from models.memory import meditations
from models.memory.spaces import SpaceKey
from models.platform.errors import Conflict, MeditationEnding, NotFound
from pipelines.memory.meditation import apply, meditate, revert_meditation
from pipelines.memory.meditation.probes import RecallEvaluator
from web.http.errors import error_response

DUPLICATES = ("I like hiking in the mountains.", "I really like hiking in the mountains!")
CONTRADICTION = ("Ana lives in Lisbon.", "Ana lives in Porto.")


@pytest.fixture
def populated(user):
    """A user with a duplicate, a contradiction and other memories."""
    user.write(*DUPLICATES, "My sister Clara teaches chemistry in Graz.", "I went running.", "I went running.")
    user.write(*CONTRADICTION, kind="fact", speaker="")
    return user


def test_duplicate_and_contradicted_fact_are_closed_and_recorded_without_texts(populated):
    meditation_id, result = populated.meditate()

    assert result["outcome"] == "applied"
    assert (result["report"]["merged"], result["report"]["contradicted"]) == (1, 1)
    recall = result["report"]["recall"]
    assert recall["probes"] > 0
    assert recall["after"] >= recall["before"]
    assert {DUPLICATES[0], CONTRADICTION[0]}.isdisjoint(populated.live_texts())
    assert {DUPLICATES[1], CONTRADICTION[1], "I went running."} <= populated.live_texts()
    closed = {change.reason: change for change in populated.changes(meditation_id)}
    assert set(closed) == {"repeats", "contradicted"}
    recorded = str([(change.before, change.after, change.reason) for change in closed.values()])
    assert "Lisbon" not in recorded
    assert "hiking" not in recorded


def test_second_meditation_changes_nothing(populated):
    populated.meditate()
    before = populated.state()

    _, result = populated.meditate()

    assert result["outcome"] == "nothing_to_do"
    assert populated.state() == before


def test_user_without_memories_has_nothing_to_do(user):
    _, result = user.meditate()

    assert result["outcome"] == "nothing_to_do"


def test_revert_restores_every_row_and_is_idempotent(populated):
    before = populated.state()
    meditation_id, _ = populated.meditate()
    assert populated.state() != before

    first = populated.revert(meditation_id)

    assert populated.state() == before
    assert first.report["reverted"] == {"undone": 2, "left": 0}
    assert all(change.reverted for change in populated.changes(meditation_id))
    assert populated.revert(meditation_id) == first
    assert populated.state() == before


def test_revert_keeps_later_turns_and_later_changes(populated):
    meditation_id, _ = populated.meditate()
    (later,) = populated.write("Something new.", day=30)
    with populated.database.transaction() as connection:  # the replacement of the duplicate
        connection.execute(
            "DELETE FROM memories WHERE text = %s AND account_id = %s", (DUPLICATES[1], populated.account_id)
        )

    reverted = populated.revert(meditation_id)

    assert reverted.report["reverted"] == {"undone": 1, "left": 1}
    assert CONTRADICTION[0] in populated.live_texts()
    assert "Something new." in populated.live_texts()
    assert DUPLICATES[0] not in populated.live_texts()
    assert later in {row["id"] for row in populated.state()["memories"]}


def test_importances_are_reverted_unless_they_were_set_since(user):
    ids = user.write("I own a red bicycle.", "The office is near the river.")
    with user.database.transaction() as connection:
        connection.execute("UPDATE memories SET recalled = 7, recalled_at = now() WHERE id = ANY(%s)", (ids,))
    before = user.state()
    meditation_id, result = user.meditate()
    assert result["report"]["weighed"] == 2
    with user.database.transaction() as connection:
        connection.execute("UPDATE memories SET importance = 0.9 WHERE id = %s", (ids[1],))

    user.revert(meditation_id)

    importances = {row["id"]: row["importance"] for row in user.state()["memories"]}
    assert importances == {ids[0]: before["memories"][0]["importance"], ids[1]: pytest.approx(0.9)}


def test_memory_changed_since_the_snapshot_is_left_alone(populated, monkeypatch):
    """A fact is corrected while the meditation plans to close it."""
    make_plan = meditate.make_plan

    def make_plan_then_change(*arguments):
        plan = make_plan(*arguments)
        with populated.database.transaction() as connection:
            connection.execute(
                "UPDATE memories SET text = 'Ana lives in Rome.', updated_at = now() WHERE text = %s",
                (CONTRADICTION[0],),
            )
        return plan

    monkeypatch.setattr(meditate, "make_plan", make_plan_then_change)
    _, result = populated.meditate()

    assert result["report"]["contradicted"] == 0
    assert result["report"]["left_alone"] == 1
    assert "Ana lives in Rome." in populated.live_texts()


def test_changes_that_would_lower_recall_are_rolled_back_and_reported(populated, monkeypatch):
    measured = iter([0.9, 0.8])
    monkeypatch.setattr(RecallEvaluator, "evaluate", lambda self, connection: next(measured))
    before = populated.state()

    meditation_id, result = populated.meditate()

    assert result["outcome"] == "would_harm"
    assert (result["report"]["recall"]["before"], result["report"]["recall"]["after"]) == (0.9, 0.8)
    assert populated.state() == before
    assert populated.changes(meditation_id) == []
    with pytest.raises(Conflict):
        populated.revert(meditation_id)


class WorkerKilled(Exception):
    """Simulates the death of the worker process."""


@pytest.mark.parametrize("function", ["analyse", "make_plan", "build_probes", "apply_plan", "_complete"])
def test_crash_before_a_step_loses_and_repeats_nothing(populated, monkeypatch, function):
    meditation_id, attempt = populated.start_meditation()
    with monkeypatch.context() as patch:
        patch.setattr(meditate, function, die)
        with pytest.raises(WorkerKilled):
            populated.run(attempt)

    again = populated.next_attempt(attempt.job.id)
    ending = populated.run(again)
    populated.settle(again, ending)

    assert ending.result["outcome"] == "applied"
    assert [change.reason for change in populated.changes(meditation_id)] == ["repeats", "contradicted"]


@pytest.mark.parametrize(
    "function", ["store.close_memories", "meditation_changes.set_replacements", "meditation_changes.record_closed"]
)
def test_crash_between_two_changes_rolls_back_both(populated, monkeypatch, function):
    before = populated.state()
    meditation_id, attempt = populated.start_meditation()
    with monkeypatch.context() as patch:
        module, name = function.split(".")
        patch.setattr(getattr(apply, module), name, die)
        with pytest.raises(WorkerKilled):
            populated.run(attempt)

    assert populated.state() == before
    assert populated.changes(meditation_id) == []


def die(*_, **__):
    raise WorkerKilled


def test_attempt_that_lost_its_claim_applies_nothing(populated):
    """Another worker has taken over the job and applied its plan."""
    _, attempt = populated.start_meditation()
    stale = populated.next_attempt(attempt.job.id)
    second = populated.next_attempt(attempt.job.id)
    populated.settle(second, populated.run(second))
    after = populated.state()

    populated.run(stale)

    assert populated.state() == after


def test_user_has_one_unfinished_meditation_at_a_time(populated):
    first, attempt = populated.start_meditation()

    assert populated.enqueue_meditation().id == first

    populated.settle(attempt, populated.run(attempt))
    assert populated.enqueue_meditation().id != first


def test_request_while_the_previous_meditation_ends_has_an_error_of_its_own(populated, monkeypatch):
    # Given a meditation that ends between the insertion, which it prevents, and the reading
    monkeypatch.setattr(meditations, "insert", lambda *_, **__: False)
    # When another one is requested
    with pytest.raises(MeditationEnding) as raised:
        populated.enqueue_meditation()
    # Then the error does not name the Idempotency-Key, and the client retries
    assert raised.value.code == "meditation_ending"
    assert error_response(raised.value, "req_1").headers["x-should-retry"] == "true"


def test_cancelled_meditation_does_not_block_the_next(populated):
    """It never started, so no worker recorded its outcome."""
    first = populated.enqueue_meditation()
    with populated.database.transaction() as connection:
        cancel(connection, first.job_id, populated.account_id)

    second = populated.enqueue_meditation()

    assert second.id != first.id
    assert populated.read(first.id).status == "cancelled"


def test_retried_dead_meditation_continues(populated):
    meditation_id, attempt = populated.start_meditation()
    populated.settle(attempt, meditate.end(attempt, "dead", {"code": "server_error", "message": "x"}))
    assert populated.read(meditation_id).status == "failed"

    again = populated.next_attempt(attempt.job.id)
    populated.settle(again, populated.run(again))

    assert populated.read(meditation_id).outcome == "applied"


def test_meditation_of_another_user_cannot_be_reverted(populated):
    meditation_id, _ = populated.meditate()

    with pytest.raises(NotFound):
        revert_meditation.revert(populated.database, meditation_id, SpaceKey(populated.account_id, "user_other"))


def test_a_completed_meditation_is_one_event(populated, events_of):
    ids = [populated.meditate()[0] for _ in range(2)]

    assert events_of(populated.account_id) == [
        ("meditation.completed", {"id": ids[0], "outcome": "applied"}),
        ("meditation.completed", {"id": ids[1], "outcome": "nothing_to_do"}),
    ]


def test_a_cancelled_meditation_is_no_event(populated, events_of):
    _, attempt = populated.start_meditation()

    populated.settle(attempt, meditate.end(attempt, "cancelled", None))

    assert events_of(populated.account_id) == []

"""Groups of memories are put to the language model within a budget, once each, and accepted answers become insights."""

import orjson
import pytest

from models.jobs import children, jobs
from models.jobs.attempt_context import WaitForChildren
from models.jobs.jobs import NewJob
from models.platform.settings import Settings
from pipelines.inference.engine import Finish, Token
from pipelines.memory import change_memory
from pipelines.memory.meditation import suggest_insights
from tests.pipelines.memory.meditation.conftest import embed_words
from tests.pipelines.memory.meditation.rides import RIDES, VALID

ON = Settings(reflection="on")


class FixedAnswerEngine:
    """An engine that always generates the same answer."""

    name, endpoint, continues, slots, context = "fixed", "", True, 1, 4096

    def __init__(self, *insights, text=None):
        self.text = text or orjson.dumps({"insights": insights}).decode()
        self.calls = 0

    def count(self, prompt, form=None):
        return 100

    def min_tokens(self, prompt, form=None):
        return 0

    def generate(self, prompt, **_):
        self.calls += 1
        yield Token(self.text, 50)
        yield Finish("stop", 100, 0, 50)

    def close(self):
        pass


@pytest.fixture
def rider(user):
    user.write(*RIDES)
    return user


def wait_for_children(user, attempt, outcome):
    """Store an attempt's children as its worker would, and return their ids."""
    assert isinstance(outcome, WaitForChildren)
    with user.database.transaction() as connection:
        children.wait_for_children(connection, attempt.job, outcome.children)
    return [child.id for child in outcome.children]


def run_child(user, begin, child_id, engine):
    attempt = begin(NewJob(suggest_insights.KIND, user.account_id, id=child_id))
    user.settle(attempt, suggest_insights.run(engine, attempt))


def meditate_with(user, begin, engine):
    """Run a meditation with its children, and return its id and result."""
    meditation_id, attempt = user.start_meditation()
    for child_id in wait_for_children(user, attempt, user.run(attempt, ON)):
        run_child(user, begin, child_id, engine)
    again = user.next_attempt(attempt.job.id)
    ending = user.run(again, ON)
    user.settle(again, ending)
    return meditation_id, ending.result


def test_insight_is_written_with_its_sources_and_reverted(rider, begin):
    before = rider.state()
    meditation_id, result = meditate_with(rider, begin, FixedAnswerEngine(VALID))

    assert (result["outcome"], result["report"]["written"]) == ("applied", 1)
    assert result["report"]["model"] == {"calls": 1, "tokens": 150, "failed": 0}
    (change,) = rider.changes(meditation_id)
    assert change.action == "created"
    sources = [row for row in rider.state()["sources"] if row["memory_id"] == change.memory_id]
    assert len(sources) == 2
    (usage,) = rider.fetch("SELECT input_tokens, output_tokens FROM usage_records WHERE account_id = %(account_id)s")
    assert usage == {"input_tokens": 100, "output_tokens": 50}
    assert VALID["text"] not in str(rider.fetch("SELECT * FROM jobs WHERE account_id = %(account_id)s"))

    rider.revert(meditation_id)

    assert rider.state() == before


def test_changed_insight_survives_the_revert(rider, begin):
    meditation_id, _ = meditate_with(rider, begin, FixedAnswerEngine(VALID))
    with rider.database.transaction() as connection:
        connection.execute(
            "UPDATE memories SET text = 'I ride a lot.' WHERE kind = 'insight' AND account_id = %s", (rider.account_id,)
        )

    assert rider.revert(meditation_id).report["reverted"] == {"undone": 0, "left": 1}
    assert "I ride a lot." in rider.live_texts()


def test_insight_is_dropped_if_a_source_changed_meanwhile(rider, begin):
    meditation_id, attempt = rider.start_meditation()
    for child_id in wait_for_children(rider, attempt, rider.run(attempt, ON)):
        run_child(rider, begin, child_id, FixedAnswerEngine(VALID))
    first = rider.fetch("SELECT id FROM memories WHERE account_id = %(account_id)s ORDER BY ordinal")[0]["id"]
    arguments = {"user_id": rider.user_id, "memory_id": first, "change": {"text": "I walked to the market."}}
    change_memory.run(embed_words, begin(NewJob("memory.change", rider.account_id, arguments)))

    again = rider.next_attempt(attempt.job.id)
    rider.settle(again, rider.run(again, ON))

    assert rider.read(meditation_id).report["written"] == 0
    assert not any("bicycle along the canal are a habit" in text for text in rider.live_texts())


def test_insight_with_more_sources_replaces_the_older_one_and_both_are_reverted(rider, begin):
    before = rider.state()
    first, _ = meditate_with(rider, begin, FixedAnswerEngine(VALID))
    between = rider.state()
    text = "Rides on the red bicycle along the canal lead to the market."
    second, result = meditate_with(rider, begin, FixedAnswerEngine({"text": text, "sources": [1, 2, 3, 4]}))
    assert (result["report"]["written"], result["report"]["replaced"]) == (1, 1)

    rider.revert(second)
    assert rider.state() == between
    rider.revert(first)
    assert rider.state() == before


def test_covered_group_is_not_asked_about_again(rider, begin):
    meditate_with(rider, begin, FixedAnswerEngine({**VALID, "sources": [1, 2, 3, 4]}))

    _, result = rider.meditate(ON)

    assert result["outcome"] == "nothing_to_do"


def test_crash_while_children_run_asks_nothing_twice(rider, begin):
    _, attempt = rider.start_meditation()
    engine = FixedAnswerEngine(VALID)
    (child_id,) = wait_for_children(rider, attempt, rider.run(attempt, ON))
    run_child(rider, begin, child_id, engine)
    for _ in range(2):  # the first of these crashes before it ends
        again = rider.next_attempt(attempt.job.id)
        ending = rider.run(again, ON)
    rider.settle(again, ending)

    assert engine.calls == 1
    with rider.database.connection() as connection:
        assert len(jobs.children(connection, attempt.job.id)) == 1
    assert len([row for row in rider.state()["memories"] if row["kind"] == "insight"]) == 1


def test_insight_is_dropped_if_a_source_was_deleted_meanwhile(rider, begin):
    _, attempt = rider.start_meditation()
    (child_id,) = wait_for_children(rider, attempt, rider.run(attempt, ON))
    run_child(rider, begin, child_id, FixedAnswerEngine(VALID))
    with rider.database.transaction() as connection:
        connection.execute("DELETE FROM memories WHERE text = %s AND account_id = %s", (RIDES[0], rider.account_id))
    again = rider.next_attempt(attempt.job.id)

    assert rider.run(again, ON).result["outcome"] == "nothing_to_do"


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(reflection="off", model="/a/large.gguf"),
        Settings(reflection="on", reflection_calls=0),
        Settings(reflection="on", reflection_tokens=100),
    ],
)
def test_nothing_is_asked_without_a_budget_or_a_capable_model(rider, settings):
    _, result = rider.meditate(settings)

    assert result["report"]["model"] == {"calls": 0, "tokens": 0, "failed": 0}


def test_configured_model_is_asked(rider):
    _, attempt = rider.start_meditation()

    assert isinstance(rider.run(attempt, Settings(model="/a/large.gguf")), WaitForChildren)


def test_model_that_the_plan_does_not_include_is_not_asked(rider, database):
    with database.transaction() as connection:
        connection.execute(
            'UPDATE accounts SET limits = limits || \'{"models": ["another"]}\' WHERE id = %s', (rider.account_id,)
        )

    _, result = rider.meditate(ON)

    assert result["report"]["model"]["calls"] == 0


def test_budget_is_limited_by_the_tokens_left_in_the_month(rider, database):
    with database.transaction() as connection:
        connection.execute(
            "UPDATE accounts SET limits = '{\"tokens_per_month\": 200}' WHERE id = %s", (rider.account_id,)
        )

    _, result = rider.meditate(ON)

    assert result["report"]["model"]["calls"] == 0

"""Given groups of memories, when a language model may be asked what follows from them, then it is asked within the
budget, each question once, and only what is well-formed and cites its sources becomes an insight."""

from datetime import UTC, datetime

import orjson
import pytest

from models.jobs import attempts, jobs
from models.jobs.attempt_context import WaitForChildren
from models.jobs.jobs import NewJob
from models.memory.scan import MemoryText
from models.platform.settings import Settings
from pipelines.inference.engine import Finish, Token
from pipelines.memory import change_memory
from pipelines.memory.meditation import suggest_insights
from tests.pipelines.memory.meditation.conftest import embed_words

ON = Settings(reflection="on")

RIDES = (
    "I took the red bicycle along the canal to the market.",
    "The red bicycle needed a new chain after the canal ride.",
    "Riding the red bicycle along the canal clears my head.",
    "The red bicycle got a flat tyre near the canal market.",
)

SOUND = {"text": "Rides on the red bicycle along the canal are a habit.", "sources": [1, 3]}


class Says:
    """An engine that writes what it is told."""

    name, continues, slots, context = "says", True, 1, 4096

    def __init__(self, *insights, text=None):
        self.text = text or orjson.dumps({"insights": insights}).decode()
        self.asked = 0

    def count(self, prompt, form=None):
        return 100

    def generate(self, prompt, **_):
        self.asked += 1
        yield Token(self.text, 50)
        yield Finish("stop", 100, 0, 50)

    def close(self):
        pass


@pytest.fixture
def rides(mind):
    mind.hear(*RIDES)
    return mind


def wait(mind, attempt, waiting):
    """The attempt lets go, as its worker would."""
    assert isinstance(waiting, WaitForChildren)
    with mind.database.transaction() as connection:
        attempts.wait_for_children(connection, attempt.job, waiting.children)
    return [child.id for child in waiting.children]


def answer(mind, begin, child_id, engine):
    attempt = begin(NewJob(suggest_insights.KIND, mind.account_id, id=child_id))
    mind.settle(attempt, suggest_insights.run(engine, attempt))


def through(mind, begin, engine):
    """A whole meditation with insights."""
    meditation_id, attempt = mind.begin()
    for child_id in wait(mind, attempt, mind.run(attempt, ON)):
        answer(mind, begin, child_id, engine)
    again = mind.attempt(attempt.job.id)
    ending = mind.run(again, ON)
    mind.settle(again, ending)
    return meditation_id, ending.result


def test_an_insight_is_written_with_its_sources_and_reverted(rides, begin):
    before = rides.state()
    meditation_id, result = through(rides, begin, Says(SOUND))

    assert (result["outcome"], result["report"]["written"]) == ("applied", 1)
    assert result["report"]["model"] == {"calls": 1, "tokens": 150, "failed": 0}
    (change,) = rides.changes(meditation_id)
    assert change.action == "created"
    sources = [row for row in rides.state()["sources"] if row["memory_id"] == change.memory_id]
    assert len(sources) == 2
    (usage,) = rides.rows("SELECT input_tokens, output_tokens FROM usage_records WHERE account_id = %(account_id)s")
    assert usage == {"input_tokens": 100, "output_tokens": 50}
    assert SOUND["text"] not in str(rides.rows("SELECT * FROM jobs WHERE account_id = %(account_id)s"))

    rides.revert(meditation_id)

    assert rides.state() == before


def test_an_insight_that_somebody_has_put_otherwise_is_theirs(rides, begin):
    meditation_id, _ = through(rides, begin, Says(SOUND))
    with rides.database.transaction() as connection:
        connection.execute(
            "UPDATE memories SET text = 'I ride a lot.' WHERE kind = 'insight' AND account_id = %s", (rides.account_id,)
        )

    assert rides.revert(meditation_id).report["reverted"] == {"undone": 0, "left": 1}
    assert "I ride a lot." in rides.live()


def test_nothing_follows_from_words_that_were_taken_back_while_it_was_asked_about(rides, begin):
    meditation_id, attempt = rides.begin()
    for child_id in wait(rides, attempt, rides.run(attempt, ON)):
        answer(rides, begin, child_id, Says(SOUND))
    first = rides.rows("SELECT id FROM memories WHERE account_id = %(account_id)s ORDER BY ordinal")[0]["id"]
    told = {"user_id": rides.user_id, "memory_id": first, "change": {"text": "I walked to the market."}}
    change_memory.run(embed_words, begin(NewJob("memory.change", rides.account_id, told)))

    again = rides.attempt(attempt.job.id)
    rides.settle(again, rides.run(again, ON))

    assert rides.read(meditation_id).report["written"] == 0
    assert not any("bicycle along the canal are a habit" in text for text in rides.live())


def test_a_larger_insight_replaces_the_smaller_and_both_are_reverted(rides, begin):
    before = rides.state()
    one, _ = through(rides, begin, Says(SOUND))
    between = rides.state()
    text = "Rides on the red bicycle along the canal lead to the market."
    two, result = through(rides, begin, Says({"text": text, "sources": [1, 2, 3, 4]}))
    assert (result["report"]["written"], result["report"]["replaced"]) == (1, 1)

    rides.revert(two)
    assert rides.state() == between
    rides.revert(one)
    assert rides.state() == before


def test_a_group_is_thought_over_once(rides, begin):
    through(rides, begin, Says({**SOUND, "sources": [1, 2, 3, 4]}))

    _, result = rides.meditate(ON)

    assert result["outcome"] == "nothing_to_do"


def test_a_death_while_the_model_is_asked_asks_nothing_twice(rides, begin):
    _, attempt = rides.begin()
    engine = Says(SOUND)
    (child_id,) = wait(rides, attempt, rides.run(attempt, ON))
    answer(rides, begin, child_id, engine)
    for _ in range(2):  # the first of these dies
        again = rides.attempt(attempt.job.id)
        ending = rides.run(again, ON)
    rides.settle(again, ending)

    assert engine.asked == 1
    with rides.database.connection() as connection:
        assert len(jobs.children(connection, attempt.job.id)) == 1
    assert len([row for row in rides.state()["memories"] if row["kind"] == "insight"]) == 1


def test_what_lost_a_source_meanwhile_is_dropped(rides, begin):
    _, attempt = rides.begin()
    (child_id,) = wait(rides, attempt, rides.run(attempt, ON))
    answer(rides, begin, child_id, Says(SOUND))
    with rides.database.transaction() as connection:
        connection.execute("DELETE FROM memories WHERE text = %s AND account_id = %s", (RIDES[0], rides.account_id))
    again = rides.attempt(attempt.job.id)

    assert rides.run(again, ON).result["outcome"] == "nothing_to_do"


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(reflection="off", model="/a/large.gguf"),
        Settings(reflection="on", reflection_calls=0),
        Settings(reflection="on", reflection_tokens=100),
    ],
)
def test_without_a_budget_or_an_able_model_nothing_is_asked(rides, settings):
    _, result = rides.meditate(settings)

    assert result["report"]["model"] == {"calls": 0, "tokens": 0, "failed": 0}


def test_a_model_that_an_operator_has_chosen_is_asked(rides):
    _, attempt = rides.begin()

    assert isinstance(rides.run(attempt, Settings(model="/a/large.gguf")), WaitForChildren)


def test_no_more_is_asked_than_the_month_has_left(rides, database):
    with database.transaction() as connection:
        connection.execute(
            "UPDATE accounts SET limits = '{\"tokens_per_month\": 200}' WHERE id = %s", (rides.account_id,)
        )

    _, result = rides.meditate(ON)

    assert result["report"]["model"]["calls"] == 0


SAID = [
    MemoryText(str(number), text, "user", datetime(2026, 1, number + 1, tzinfo=UTC))
    for number, text in enumerate(RIDES)
]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        '{"insights": 5}',
        '{"insights": [{"text": "Rides on the red bicy',
        '{"insights": [{"text": 5, "sources": [1, 2]}]}',
        orjson.dumps({"insights": [{**SOUND, "sources": []}]}).decode(),
        orjson.dumps({"insights": [{**SOUND, "sources": [1]}]}).decode(),
        orjson.dumps({"insights": [{**SOUND, "sources": [1, 9]}]}).decode(),
        orjson.dumps({"insights": [{"text": RIDES[0], "sources": [1, 2]}]}).decode(),
        orjson.dumps(
            {"insights": [{"text": "Penguins prefer quantum chromodynamics lectures.", "sources": [1, 2]}]}
        ).decode(),
    ],
)
def test_what_is_malformed_uncited_repeated_or_made_up_is_dropped(answer):
    assert list(suggest_insights.accepted_insights(answer, SAID)) == []


def test_what_is_sound_is_kept():
    answer = orjson.dumps({"insights": [SOUND]}).decode()

    (kept,) = suggest_insights.accepted_insights(answer, SAID)

    assert (kept["text"], kept["sources"]) == (SOUND["text"], ["0", "2"])

"""Given things that people say, when facts are looked for, then what is grounded is kept, and closes the older."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from models.jobs import attempts
from models.jobs.attempt_context import WaitForChildren, plain_ending
from models.jobs.jobs import NewJob
from models.memory import facts, memories, spaces
from models.memory import sources as memory_sources
from models.memory.memories import NewMemory
from models.memory.scan import MemoryText
from models.platform.settings import Settings
from pipelines.chat import turn
from pipelines.memory import change_memory, extract_facts, forget_memories, remember_turns
from pipelines.memory.follow_ups import extract_facts_job
from pipelines.memory.recall import Query, recall
from pipelines.memory.store import write_memories
from pipelines.memory.suggest_facts import accepted_facts
from pipelines.memory.suggest_facts import run as run_fact
from tests.pipelines.chat.conftest import FakeEngine, TurnHarness
from tests.pipelines.memory.job_helpers import flat, next_job, waiting

SETTINGS = Settings(reflection="on")

MONDAY = datetime(2026, 11, 16, 9, tzinfo=UTC)


@pytest.fixture
def harness(database, redis_client):
    harness = TurnHarness(database, redis_client)
    yield harness
    harness.close()


def said(harness, *texts, day=0, speaker="user"):
    at = MONDAY + timedelta(days=day)
    news = [
        NewMemory(f"mem_{harness.caller.user_id}_{day}_{n}", text, speaker, at, "talk") for n, text in enumerate(texts)
    ]
    return write_memories(harness.database, flat, harness.caller.account_id, harness.caller.user_id, news)


def fact(text, subject, attribute, value, *sources):
    return {"text": text, "subject": subject, "attribute": attribute, "value": value, "sources": list(sources)}


def look(harness, *answers, meanwhile=lambda: None):
    """An extraction whose model answers so, window by window. Returns how often it was asked. `meanwhile` happens
    before an answer is read."""
    with harness.database.transaction() as connection:
        job = extract_facts_job(harness.caller.account_id, harness.caller.user_id, datetime.now(UTC))
        attempts.enqueue(connection, job)
    asked = 0
    while True:
        attempt = next_job(harness, facts.EXTRACT_KIND)
        outcome = extract_facts.run(flat, SETTINGS, attempt)
        if not isinstance(outcome, WaitForChildren):
            harness.settle(attempt, outcome)
            return asked
        with harness.database.transaction() as connection:
            attempts.wait_for_children(connection, attempt.job, outcome.children)
        child = next_job(harness, facts.FACT_KIND)
        answer = answers[asked]
        asked += 1
        if answer is None:
            harness.settle(child, plain_ending(child, "dead", {"code": "x", "message": "x"}))
        else:
            engine = FakeEngine(orjson.dumps({"facts": answer}).decode(), context=100_000)
            harness.settle(child, run_fact(engine, child))
        meanwhile()


def held(harness):
    with harness.database.connection() as connection:
        return facts.list_live(connection, harness.caller.account_id, harness.caller.user_id)


def test_a_fact_is_kept_with_its_source_and_its_time(harness):
    (source,) = said(harness, "I live in Lisbon with my cat.")

    assert look(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]) == 1

    (found,) = held(harness)
    assert (found.text, found.since, found.metadata["attribute"]) == ("user lives in Lisbon", MONDAY, "home")
    with harness.database.connection() as connection:
        assert memory_sources.list_sources(connection, found.id, harness.caller.account_id) == [source]
        answers = connection.execute("SELECT result FROM jobs WHERE account_id = %s AND kind = 'memory.fact'",
                                     (harness.caller.account_id,)).fetchall()  # fmt: skip
    assert answers == [{"result": {"found": 1}}]  # whose words stand among the memories only


def test_what_was_read_is_not_read_again(harness):
    said(harness, "I live in Lisbon.")
    assert look(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]) == 1

    assert look(harness) == 0
    assert len(held(harness)) == 1


def test_a_fact_closes_the_one_that_it_replaces_and_deletes_nothing(harness):
    said(harness, "I live in Lisbon.")
    look(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)])
    (old,) = held(harness)
    said(harness, "I live in Porto now.", day=30)

    look(harness, [fact("user lives in Porto", "user", "home", "Porto", 1)])

    (new,) = held(harness)
    assert new.text == "user lives in Porto"
    with harness.database.connection() as connection:
        closed = memories.read(connection, old.id, harness.caller.account_id, harness.caller.user_id)
    assert (closed.closed_by, closed.text) == (new.id, "user lives in Lisbon")


def test_the_same_fact_is_kept_once_and_cites_both_who_say_it(harness):
    sources = said(harness, "I live in Lisbon.")
    look(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)])
    sources += said(harness, "Yes, I live in Lisbon!", day=3)

    look(harness, [fact("User lives in Lisbon", "user", "home", "Lisbon", 1)])

    (found,) = held(harness)
    with harness.database.connection() as connection:
        assert memory_sources.list_sources(connection, found.id, harness.caller.account_id) == sorted(sources)


def test_a_fact_goes_with_what_alone_it_follows_from(harness):
    (source,) = said(harness, "I live in Lisbon.")
    look(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)])

    with harness.database.transaction() as connection:
        space = spaces.find(connection, harness.caller.account_id, harness.caller.user_id)
        forget_memories.delete_memories(connection, spaces.lock(connection, space.id), [source])

    assert held(harness) == []


def change(harness, memory_id, text):
    told = {"user_id": harness.caller.user_id, "memory_id": memory_id, "change": {"text": text}}
    with harness.database.transaction() as connection:
        attempts.enqueue(connection, NewJob("memory.change", harness.caller.account_id, told))
    attempt = next_job(harness, "memory.change")
    harness.settle(attempt, change_memory.run(flat, attempt))


def test_nothing_follows_from_words_that_were_taken_back_while_they_were_read(harness):
    (source,) = said(harness, "I live in Lisbon.")
    found = fact("user lives in Lisbon", "user", "home", "Lisbon", 1)

    look(harness, [found], meanwhile=lambda: change(harness, source, "I live somewhere."))

    assert held(harness) == []


def test_what_has_lost_its_words_is_recalled_no_more_whatever_it_is_told_to_say(harness):
    (source,) = said(harness, "I live in Lisbon.")
    look(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)])
    (old,) = held(harness)
    change(harness, source, "I live somewhere.")

    change(harness, old.id, "user lives in Lisbon")

    hits = recall(harness.database, flat, harness.caller.account_id, harness.caller.user_id, Query("Where do I live?"))
    assert [hit.memory.id for hit in hits] == [source]


def test_a_thousand_things_are_read_in_windows_within_a_budget(harness):
    said(harness, *[f"I own thing number {number}." for number in range(60)])

    assert look(harness, [], None, []) == 3  # a window that fails is passed by
    assert look(harness) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        fact("user lives in Paris", "user", "home", "Paris", 1),  # nobody said so
        fact("user lives in Lisbon", "user", "home", "Lisbon", 3),  # there is no such line
        fact("user lives in Lisbon", "user", "home", "Lisbon", 2),  # only the assistant said so
        fact("user lives in Lisbon", "user", "home", "Lisbon"),
        fact("user lives in Lisbon", "user", "", "Lisbon", 1),
        {"text": "user lives in Lisbon"},
        "user lives in Lisbon",
    ],
)
def test_what_is_not_grounded_is_dropped(wrong):
    lines = [
        MemoryText("a", "I live in Lisbon.", "user", MONDAY),
        MemoryText("b", "Lisbon it is.", "assistant", MONDAY),
    ]

    assert list(accepted_facts(orjson.dumps({"facts": [wrong]}).decode(), lines)) == []


@pytest.mark.parametrize("answer", ["", "{", '{"facts": 3}', "[]", "null"])
def test_an_answer_that_is_none_gives_no_facts(answer):
    assert list(accepted_facts(answer, [])) == []


@pytest.mark.parametrize(("reflection", "jobs"), [("on", 1), ("auto", 0)])
def test_facts_are_looked_for_some_time_after_a_turn_where_the_model_is_good_enough(harness, reflection, jobs):
    started = harness.start("I live in Lisbon.")
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(FakeEngine("fine"), attempt))
    attempt = next_job(harness, "memory.remember")
    harness.settle(attempt, remember_turns.run(flat, Settings(reflection=reflection), attempt))

    found = waiting(harness, facts.EXTRACT_KIND)
    assert len(found) == jobs
    assert all(job["delay"] > remember_turns.EXTRACTION_DELAY - timedelta(seconds=5) for job in found)

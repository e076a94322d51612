"""Facts are extracted window by window; grounded ones are written and close the older ones they contradict."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import orjson
import pytest
from psycopg.types.json import Jsonb

from models.billing import billing_details, spending
from models.jobs.attempt_context import WaitForChildren, plain_ending
from models.jobs.children import wait_for_children
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import monthly_usage
from models.memory import facts, memories, spaces
from models.memory import sources as memory_sources
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.billing import grants
from pipelines.chat import turn
from pipelines.inference.registry import model_name
from pipelines.memory import change_memory, extract_facts, forget_memories, remember_turns
from pipelines.memory.follow_ups import extract_facts_job
from pipelines.memory.recall import Query, recall
from pipelines.memory.store import write_memories
from pipelines.memory.suggest_facts import run as run_fact
from tests.pipelines.chat.conftest import FakeEngine, TurnHarness
from tests.pipelines.memory.job_helpers import claim_next, embed_alike, unfinished_jobs

SETTINGS = Settings(reflection="on")

MONDAY = datetime(2026, 11, 16, 9, tzinfo=UTC)


@pytest.fixture
def harness(database, redis_client):
    harness = TurnHarness(database, redis_client)
    yield harness
    harness.close()


def write_episodes(harness, *texts, day=0, speaker="user"):
    at = MONDAY + timedelta(days=day)
    episodes = [
        NewMemory(f"mem_{harness.caller.user_id}_{day}_{n}", text, speaker, at, "talk") for n, text in enumerate(texts)
    ]
    return write_memories(harness.database, embed_alike, own_space(harness), episodes)


def own_space(harness):
    return SpaceKey(harness.caller.account_id, harness.caller.user_id)


def fact(text, subject, attribute, value, *sources):
    return {"text": text, "subject": subject, "attribute": attribute, "value": value, "sources": list(sources)}


def run_extraction(harness, *answers, before_answer=lambda: None, meanwhile=lambda: None, settings=SETTINGS):
    """Run an extraction whose model gives these answers, one a window; the child fails if the answer is None.

    before_answer  is called before the model answers
    meanwhile      is called before an answer is read

    Returns the number of windows.
    """
    with harness.database.transaction() as connection:
        job = extract_facts_job(own_space(harness), datetime.now(UTC))
        enqueue(connection, job)
    windows = 0
    while True:
        attempt = claim_next(harness, facts.EXTRACT_KIND)
        outcome = extract_facts.run(embed_alike, settings, attempt)
        if not isinstance(outcome, WaitForChildren):
            harness.settle(attempt, outcome)
            return windows
        with harness.database.transaction() as connection:
            outcome.reserve(connection)
            wait_for_children(connection, attempt.job, outcome.children)
        child = claim_next(harness, facts.FACT_KIND)
        answer = answers[windows]
        windows += 1
        before_answer()
        if answer is None:
            harness.settle(child, plain_ending(child, "dead", {"code": "x", "message": "x"}))
        else:
            engine = FakeEngine(orjson.dumps({"facts": answer}).decode(), context=100_000)
            harness.settle(child, run_fact(engine, child))
        meanwhile()


def live_facts(harness):
    with harness.database.connection() as connection:
        space = spaces.find(connection, own_space(harness))
        return facts.list_live(connection, space.id) if space else []


def test_fact_is_written_with_its_source_and_time(harness):
    (source,) = write_episodes(harness, "I live in Lisbon with my cat.")

    assert run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]) == 1

    (written,) = live_facts(harness)
    assert (written.text, written.since, written.metadata["attribute"]) == ("user lives in Lisbon", MONDAY, "home")
    with harness.database.connection() as connection:
        assert memory_sources.list_sources(connection, written.id, harness.caller.account_id) == [source]
        answers = connection.execute("SELECT result FROM jobs WHERE account_id = %s AND kind = 'memory.fact'",
                                     (harness.caller.account_id,)).fetchall()  # fmt: skip
    assert answers == [{"result": {"found": 1}}]  # the texts are among the memories only


def test_memories_are_read_once(harness):
    write_episodes(harness, "I live in Lisbon.")
    assert run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]) == 1

    assert run_extraction(harness) == 0
    assert len(live_facts(harness)) == 1


def limit_month(harness, tokens):
    """Let the account use so many tokens a month."""
    limits = Jsonb({"tokens_per_month": tokens})
    with harness.database.connection() as connection:
        connection.execute("UPDATE accounts SET limits = %s WHERE id = %s", (limits, harness.caller.account_id))


def test_window_is_not_read_while_the_tokens_left_in_the_month_do_not_suffice(harness):
    # Given an account with few tokens a month
    limit_month(harness, 200)
    write_episodes(harness, "I live in Lisbon.")
    # When facts are extracted, then the model is not asked
    assert run_extraction(harness) == 0
    # And the window is read once tokens are left
    limit_month(harness, 100_000)
    assert run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]) == 1


INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, 'SEK', 1000, 1000, 1000, '2026-01-01')
"""


@pytest.fixture
def limit_spending(harness):
    """`limit_spending("1.00")` limits the spending of an account that pays 1 per thousand tokens."""
    account_id, price_id = harness.caller.account_id, new_id("price")
    with harness.database.transaction() as connection:
        connection.execute(INSERT_PRICE, (price_id, model_name(SETTINGS)))
        billing_details.ensure(connection, account_id, "SEK")

    def limit_spending(amount):
        with harness.database.transaction() as connection:
            spending.set_limit(connection, account_id, "", Decimal(amount))

    yield limit_spending
    with harness.database.transaction() as connection:
        connection.execute("DELETE FROM postings WHERE account_id = %s", (account_id,))
        connection.execute("DELETE FROM prices WHERE id = %s", (price_id,))


def test_window_is_not_read_while_the_spending_limit_does_not_suffice(harness, limit_spending):
    # Given an account whose limit pays for few tokens
    limit_spending("0.20")
    write_episodes(harness, "I live in Lisbon.")
    # When facts are extracted, then the model is not asked
    assert run_extraction(harness) == 0
    # And the window is read once the limit suffices
    limit_spending("100")
    assert run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]) == 1


def test_model_that_the_plan_does_not_include_is_not_asked(harness):
    write_episodes(harness, "I live in Lisbon.")
    limits = "UPDATE accounts SET limits = jsonb_set(limits, '{models}', %s) WHERE id = %s"
    with harness.database.connection() as connection:
        connection.execute(limits, (Jsonb(["another"]), harness.caller.account_id))
    assert run_extraction(harness) == 0

    with harness.database.connection() as connection:
        connection.execute(limits, (Jsonb([model_name(SETTINGS)]), harness.caller.account_id))
    assert run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]) == 1


def test_account_that_pays_in_advance_asks_once_it_has_credits(harness, limit_spending):
    # Given an account without a payment method, where the gateway charges stored ones
    write_episodes(harness, "I live in Lisbon.")
    settings = Settings(
        reflection="on", gateway="stripe", stripe_secret_key="sk_test_x", stripe_webhook_secret="whsec_test"
    )
    account_id = harness.caller.account_id
    assert run_extraction(harness, settings=settings) == 0

    # When it has credits, Then the model is asked
    with harness.database.transaction() as connection:
        grants.give(connection, account_id, Decimal(100), reason="welcome")
    answer = [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]
    assert run_extraction(harness, answer, settings=settings) == 1


def test_question_about_facts_reserves_its_cost_until_it_is_billed(harness, limit_spending):
    limit_spending("100")
    write_episodes(harness, "I live in Lisbon.")
    reserved = []

    def note_reservation():
        with harness.database.connection() as connection:
            reserved.append(spending.monthly_spending(connection, harness.caller.account_id).reserved)

    answer = [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]
    run_extraction(harness, answer, before_answer=note_reservation, meanwhile=note_reservation)

    assert reserved == [Decimal(200 + 16 + len("I live in Lisbon.") // 3 + 600) / 1000, 0]


def test_question_about_facts_reserves_its_tokens_until_it_is_billed(harness):
    # Given a window
    write_episodes(harness, "I live in Lisbon.")
    reserved = []

    def note_reservation():
        with harness.database.connection() as connection:
            reserved.append(monthly_usage(connection, harness.caller.account_id).reserved)

    # When the model is asked about it
    answer = [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)]
    run_extraction(harness, answer, before_answer=note_reservation, meanwhile=note_reservation)
    # Then prompt and answer are reserved until the question's job ends
    assert reserved == [200 + 16 + len("I live in Lisbon.") // 3 + 600, 0]


def test_newer_fact_closes_the_one_it_contradicts_and_deletes_nothing(harness):
    write_episodes(harness, "I live in Lisbon.")
    run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)])
    (old,) = live_facts(harness)
    write_episodes(harness, "I live in Porto now.", day=30)

    run_extraction(harness, [fact("user lives in Porto", "user", "home", "Porto", 1)])

    (new,) = live_facts(harness)
    assert new.text == "user lives in Porto"
    with harness.database.connection() as connection:
        closed = memories.read(connection, old.id, own_space(harness))
    assert (closed.closed_by, closed.text) == (new.id, "user lives in Lisbon")


def test_repeated_fact_is_written_once_and_cites_both_sources(harness):
    sources = write_episodes(harness, "I live in Lisbon.")
    run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)])
    sources += write_episodes(harness, "Yes, I live in Lisbon!", day=3)

    run_extraction(harness, [fact("User lives in Lisbon", "user", "home", "Lisbon", 1)])

    (written,) = live_facts(harness)
    with harness.database.connection() as connection:
        assert memory_sources.list_sources(connection, written.id, harness.caller.account_id) == sorted(sources)


def test_fact_is_erased_with_its_only_source(harness):
    (source,) = write_episodes(harness, "I live in Lisbon.")
    run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)])

    with harness.database.transaction() as connection:
        space = spaces.find(connection, own_space(harness))
        forget_memories.delete_memories(connection, spaces.lock(connection, space.id), [source])

    assert live_facts(harness) == []


def run_change(harness, memory_id, text):
    arguments = {"user_id": harness.caller.user_id, "memory_id": memory_id, "change": {"text": text}}
    with harness.database.transaction() as connection:
        enqueue(connection, NewJob("memory.change", harness.caller.account_id, arguments))
    attempt = claim_next(harness, "memory.change")
    harness.settle(attempt, change_memory.run(embed_alike, attempt))


def test_fact_is_dropped_if_its_source_changed_meanwhile(harness):
    (source,) = write_episodes(harness, "I live in Lisbon.")
    suggestion = fact("user lives in Lisbon", "user", "home", "Lisbon", 1)

    run_extraction(harness, [suggestion], meanwhile=lambda: run_change(harness, source, "I live somewhere."))

    assert live_facts(harness) == []


def test_erased_fact_is_not_recalled_even_after_it_gets_a_text(harness):
    (source,) = write_episodes(harness, "I live in Lisbon.")
    run_extraction(harness, [fact("user lives in Lisbon", "user", "home", "Lisbon", 1)])
    (old,) = live_facts(harness)
    run_change(harness, source, "I live somewhere.")

    run_change(harness, old.id, "user lives in Lisbon")

    hits = recall(
        harness.database,
        embed_alike,
        own_space(harness),
        Query("Where do I live?"),
    )
    assert [hit.memory.id for hit in hits] == [source]


def test_memories_are_read_in_windows_and_a_failed_window_is_skipped(harness):
    write_episodes(harness, *[f"I own thing number {number}." for number in range(60)])

    assert run_extraction(harness, [], None, []) == 3
    assert run_extraction(harness) == 0


@pytest.mark.parametrize(("reflection", "jobs"), [("on", 1), ("auto", 0)])
def test_extraction_is_scheduled_after_a_turn_if_reflection_is_enabled(harness, reflection, jobs):
    started = harness.start("I live in Lisbon.")
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(FakeEngine("fine"), attempt))
    attempt = claim_next(harness, "memory.remember")
    harness.settle(attempt, remember_turns.run(embed_alike, Settings(reflection=reflection), attempt))

    scheduled = unfinished_jobs(harness, facts.EXTRACT_KIND)
    assert len(scheduled) == jobs
    assert all(job["delay"] > remember_turns.EXTRACTION_DELAY - timedelta(seconds=5) for job in scheduled)

"""The class of a job's price follows from its tier or its queue, and its endpoint from the engine that served it."""

from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest

from models.accounts.plans import Allowance
from models.billing import billing_details, spending
from models.jobs import completion_windows
from models.jobs.jobs import NewJob, enqueue
from models.memory import facts
from models.memory.spaces import SpaceKey
from models.platform.database import fetch_one
from models.platform.ids import new_id
from pipelines.chat import turn
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.service_tiers import served_tier, service_class
from pipelines.chat.start_turn import new_turn_ids, start_turn
from pipelines.memory import suggest_facts
from tests.pipelines.chat.conftest import REQUEST, FakeEngine, TurnHarness
from tests.pipelines.memory.job_helpers import claim_next

#: Output tokens cost 1, 2, 4 and 8 each.
PRICES = {("standard", ""): 1, ("batch", ""): 2, ("priority", ""): 4, ("standard", "groq"): 8}

INSERT_PRICE = """
INSERT INTO prices (id, model, endpoint, service_class, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, %s, %s, 'EUR', 0, 0, %s, '2026-01-01')
"""


@pytest.fixture
def harness(database, redis_client):
    harness = TurnHarness(database, redis_client)
    with database.transaction() as connection:
        billing_details.ensure(connection, harness.caller.account_id, "EUR")
    yield harness
    with database.connection() as connection:
        connection.execute("DELETE FROM postings WHERE account_id = %s", (harness.caller.account_id,))
    harness.close()


@pytest.fixture
def engine(database):
    """An engine of three tokens whose model has a price of each class, and one of the endpoint `groq`."""
    engine = FakeEngine("a ", "b ", "c ")
    engine.name = new_id("model")
    with database.transaction() as connection:
        for (class_, endpoint), price in PRICES.items():
            parameters = (new_id("price"), engine.name, endpoint, class_, price * 1_000_000)
            connection.execute(INSERT_PRICE, parameters)
    return engine


def cost(harness, job_id):
    with harness.database.connection() as connection:
        row = fetch_one(connection, "SELECT billed_amount FROM usage_records WHERE job_id = %s", (job_id,))
    return row["billed_amount"]


def run(harness, engine, **request):
    """Run a turn to its end. Returns its job as it was claimed."""
    started = harness.start(model=engine.name, **request)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))
    return attempt.job


@pytest.mark.parametrize(
    ("tier", "queue", "amount"),
    [
        (None, "inference", 3), ("auto", "inference", 3), ("default", "inference", 3), ("scale", "inference", 3),
        ("flex", "inference_batch", 6), ("priority", "inference", 12), ("fast", "inference", 12),
    ],
)  # fmt: skip
def test_a_tier_decides_queue_and_price(harness, engine, tier, queue, amount):
    job = run(harness, engine, service_tier=tier)

    assert (job.queue, cost(harness, job.id)) == (queue, amount)


def test_a_turn_of_an_endpoint_has_its_price(harness, engine):
    engine.endpoint = "groq"

    assert cost(harness, run(harness, engine).id) == 24
    # A class comes before an endpoint.
    assert cost(harness, run(harness, engine, service_tier="flex").id) == 6


def test_a_cancelled_turn_has_the_price_of_its_class_and_endpoint(harness, engine):
    engine.endpoint = "groq"
    started = harness.start(model=engine.name)
    attempt = harness.attempt(started)
    engine.before_token = lambda position: attempt.stop("cancelled") if position == 2 else None
    with pytest.raises(Exception, match="cancelled"):
        turn.run(engine, attempt)

    harness.settle(attempt, turn.end(attempt, "cancelled", None, engine.endpoint))

    assert cost(harness, started.response.job_id) == 16


def test_facts_have_the_price_of_background_work(harness, engine):
    key = SpaceKey(harness.caller.account_id, harness.caller.user_id)
    engine.outputs, engine.context = [orjson.dumps({"facts": []}).decode()], 10_000
    source = harness.remember("I live in Lisbon", datetime(2026, 1, 1, tzinfo=UTC))
    arguments = {**key.arguments, "source_ids": [source.id], "behind": 0}
    job = NewJob(facts.FACT_KIND, key.account_id, arguments, reserved_tokens=5000)
    with harness.database.transaction() as connection:
        enqueue(connection, job)

    attempt = claim_next(harness, facts.FACT_KIND)
    harness.settle(attempt, suggest_facts.run(engine, attempt))

    assert cost(harness, job.id) == 2


@pytest.mark.parametrize(("tier", "reserved"), [(None, 80), ("flex", 20), ("priority", 40)])
def test_a_turn_reserves_the_highest_price_of_any_endpoint(harness, engine, tier, reserved):
    with harness.database.transaction() as connection:
        spending.set_limit(connection, harness.caller.account_id, "", Decimal(1000))
    new = NewTurn({**REQUEST, "model": engine.name, "max_output_tokens": 10, "service_tier": tier}, [])

    start_turn(harness.database, harness.caller, new, *new_turn_ids(), Allowance(context=1000, billed=True))

    with harness.database.connection() as connection:
        assert spending.monthly_spending(connection, harness.caller.account_id).reserved == reserved


def test_a_class_without_a_price_has_that_of_the_standard_class(harness, engine, database):
    with database.connection() as connection:
        connection.execute("DELETE FROM prices WHERE model = %s AND service_class <> 'standard'", (engine.name,))

    assert cost(harness, run(harness, engine, service_tier="flex").id) == 3


@pytest.mark.parametrize("tier", [None, "auto", "default", "scale", "flex", "priority", "fast", "ultrafast", "new"])
def test_every_tier_has_a_class(tier):
    assert service_class({"service_tier": tier}) in ("standard", "batch", "priority")
    assert served_tier({"service_tier": tier}) in ("default", "flex", "priority")


def test_facts_never_use_more_than_their_job_has_reserved(harness, engine):
    # Given two memories, of which the reservation covers one
    key = SpaceKey(harness.caller.account_id, harness.caller.user_id)
    engine.outputs, engine.context = [orjson.dumps({"facts": []}).decode()], 100_000
    times = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)]
    sources = [harness.remember(" ".join(["word"] * 2000), time).id for time in times]
    arguments = {**key.arguments, "source_ids": sources, "behind": 0}
    job = NewJob(facts.FACT_KIND, key.account_id, arguments, reserved_tokens=800)
    with harness.database.transaction() as connection:
        enqueue(connection, job)

    # When the model is asked
    attempt = claim_next(harness, facts.FACT_KIND)
    ending = suggest_facts.run(engine, attempt)

    # Then the prompt has one of them, beside the longest answer
    ((_, lines),) = engine.prompts
    assert len(lines.content.splitlines()) == 1
    assert ending.tokens <= job.reserved_tokens


def test_a_turn_that_calls_tools_of_servers_reserves_each_of_its_generations(harness, engine):
    with harness.database.transaction() as connection:
        spending.set_limit(connection, harness.caller.account_id, "", Decimal(100_000))
    tool = {"type": "mcp", "server_label": "x", "server_url": "https://x.example", "require_approval": "never"}
    request = {**REQUEST, "model": engine.name, "max_output_tokens": 10, "tools": [tool], "max_tool_calls": 4}
    new = NewTurn(request, [])

    start_turn(harness.database, harness.caller, new, *new_turn_ids(), Allowance(context=1000, billed=True))

    # Five generations of ten tokens at most, at the price of the endpoint
    with harness.database.connection() as connection:
        assert spending.monthly_spending(connection, harness.caller.account_id).reserved == 5 * 10 * 8


def make_older(harness, started, seconds):
    with harness.database.connection() as connection:
        connection.execute(
            "UPDATE responses SET created_at = now() - make_interval(secs => %s) WHERE id = %s",
            (seconds, started.response.id),
        )


def test_a_turn_with_priority_that_begins_late_has_the_standard_price_and_says_so(harness, engine):
    # Given a turn of the tier `priority` that has waited for longer than it should
    started = harness.start(model=engine.name, service_tier="priority")
    make_older(harness, started, 6)

    # When its first attempt is killed after a token, and another one ends it
    attempt = harness.attempt(started)
    engine.error, engine.outputs = RuntimeError("killed"), engine.outputs[:1]
    with pytest.raises(RuntimeError):
        turn.run(engine, attempt)
    harness.crash_worker(attempt)
    engine.error, engine.outputs = None, ("b ", "c ")
    attempt = harness.attempt(started)
    ending = turn.run(engine, attempt)
    harness.settle(attempt, ending)

    # Then it costs what others do, in its last event and its row
    assert cost(harness, started.response.job_id) == 3
    assert harness.stored_response(started).served_tier == "default"
    assert orjson.loads(ending.events[-1].data)["response"]["service_tier"] == "default"


def test_a_turn_with_priority_that_has_begun_in_time_keeps_its_tier(harness, engine):
    # Given a turn that has begun, and whose worker then was killed for a while
    started = harness.start(model=engine.name, service_tier="priority")
    attempt = harness.attempt(started)
    engine.error, outputs = RuntimeError("killed"), engine.outputs
    engine.outputs = outputs[:1]
    with pytest.raises(RuntimeError):
        turn.run(engine, attempt)
    harness.crash_worker(attempt)
    make_older(harness, started, 60)

    engine.error, engine.outputs = None, outputs[1:]
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))

    assert cost(harness, started.response.job_id) == 12
    assert harness.stored_response(started).served_tier == "priority"


def test_the_time_that_a_turn_waits_for_the_one_before_it_does_not_count(harness, engine):
    before = harness.start(model=engine.name)
    started = harness.start(model=engine.name, service_tier="priority", previous=before.response.id)
    make_older(harness, started, 60)
    attempt = harness.attempt(before)
    harness.settle(attempt, turn.run(engine, attempt))

    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))

    assert cost(harness, started.response.job_id) == 12


def test_a_late_turn_with_priority_that_is_cancelled_has_the_standard_price(harness, engine):
    started = harness.start(model=engine.name, service_tier="priority")
    make_older(harness, started, 6)
    attempt = harness.attempt(started)
    engine.before_token = lambda position: attempt.stop("cancelled") if position == 2 else None
    with pytest.raises(Exception, match="cancelled"):
        turn.run(engine, attempt)

    harness.settle(attempt, turn.end(attempt, "cancelled", None))

    assert cost(harness, started.response.job_id) == 2


def test_a_turn_with_a_completion_window_is_background_work_also_after_its_promotion(harness, engine):
    started = harness.start(model=engine.name, background=True, completion_window="2h")
    with harness.database.connection() as connection:
        connection.execute(
            "UPDATE completion_windows SET promote_at = now() WHERE job_id = %s", (started.response.job_id,)
        )
        assert completion_windows.promote_late(connection) == 1

    attempt = harness.attempt(started)
    ending = turn.run(engine, attempt)
    harness.settle(attempt, ending)

    assert attempt.job.queue == "inference"
    assert cost(harness, started.response.job_id) == 6
    assert orjson.loads(ending.events[-1].data)["response"]["service_tier"] == "flex"

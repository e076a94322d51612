"""Tokens are billed at the price of the engine that generated them, and the prompt once."""

import random
from collections import Counter
from decimal import Decimal

import orjson
import pytest

from models.billing import billing_details
from models.platform.database import fetch_all, fetch_one
from models.platform.errors import Cancelled
from models.platform.ids import new_id
from pipelines.billing.audit.money import differences
from pipelines.chat import turn
from pipelines.chat.transcript import ANSWER_RESTARTED, ENGINE_CHANGED
from tests.databases import new_database
from tests.pipelines.chat.conftest import FakeEngine, TurnHarness

INSERT_PRICE = """
INSERT INTO prices (id, model, endpoint, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, %s, 'EUR', %s, %s, %s, '2026-01-01')
"""

#: (model, endpoint) → the price of a million tokens of input and of output.
PRICES = {("asked", ""): (10, 100), ("asked", "corp"): (30, 300), ("8b-instant", "groq"): (7, 70)}

#: The engines, and the price that each one's tokens have.
LOCAL, CORP, GROQ, FREE = ("asked", ""), ("70b", "corp"), ("8b-instant", "groq"), ("other", "new")
PRICE_OF = {LOCAL: ("asked", ""), CORP: ("asked", "corp"), GROQ: ("8b-instant", "groq"), FREE: ("asked", "")}

SEGMENTS = """
SELECT segment_model, segment_endpoint, segment_input, segment_output FROM usage_segments
WHERE job_id = %s ORDER BY position
"""


class Crash(Exception):
    """The worker dies."""


@pytest.fixture
def harness(postgres, redis_client):
    """A billed account in a database of its own: the audit reads all of it."""
    with new_database(postgres) as database:
        harness = TurnHarness(database, redis_client)
        with database.transaction() as connection:
            for (model, endpoint), (input_price, output_price) in PRICES.items():
                parameters = (new_id("price"), model, endpoint, input_price, input_price, output_price)
                connection.execute(INSERT_PRICE, parameters)
            billing_details.ensure(connection, harness.caller.account_id, "EUR")
        yield harness
        harness.writer.stop()


def engine_of(name, *outputs, continues=True):
    engine = FakeEngine(*outputs, continues=continues)
    engine.name, engine.endpoint = name
    return engine


def crash_at(harness, started, engine, position):
    """Run an attempt whose worker dies before a token."""
    attempt = harness.attempt(started)

    def crash(at):
        if at == position:
            raise Crash

    engine.before_token = crash
    with pytest.raises(Crash):
        turn.run(engine, attempt)
    harness.crash_worker(attempt)


def finish(harness, started, engine):
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))


def events(harness, started, type_):
    with harness.database.connection() as connection:
        rows = fetch_all(connection, "SELECT events FROM job_events WHERE job_id = %s", (started.response.job_id,))
    lines = [orjson.loads(line) for row in rows for line in row["events"].split("\n")]
    return [line for line in lines if line["type"] == type_]


def segments(harness, started):
    with harness.database.connection() as connection:
        rows = fetch_all(connection, SEGMENTS, (started.response.job_id,))
    return [tuple(row.values()) for row in rows]


def amount(harness, started):
    with harness.database.connection() as connection:
        record = "SELECT billed_amount FROM usage_records WHERE job_id = %s"
        return fetch_one(connection, record, (started.response.job_id,))["billed_amount"]


def price(engine, input_tokens, output_tokens):
    per_input, per_output = PRICES[PRICE_OF[engine]]
    return (input_tokens * per_input + output_tokens * per_output) * Decimal("0.000001")


def assert_no_difference(harness):
    with harness.database.transaction() as connection:
        assert list(differences(connection)) == []


def test_an_answer_that_an_endpoint_continues_is_billed_by_segment(harness):
    # Given a turn whose local worker dies after two tokens
    started = harness.start("one two three", model="asked")
    crash_at(harness, started, engine_of(LOCAL, "a ", "b ", "c "), 2)

    # When an endpoint continues it
    finish(harness, started, engine_of(GROQ, "c ", "d ", "e "))

    # Then the prompt is billed once, with the engine that began the answer
    assert segments(harness, started) == [("asked", "", 3, 2), ("8b-instant", "groq", 0, 3)]
    assert amount(harness, started) == price(LOCAL, 3, 2) + price(GROQ, 0, 3)
    assert harness.billed(started) == [(3, 0, 5)]
    (changed,) = events(harness, started, ENGINE_CHANGED)
    assert (changed["from_model"], changed["from_endpoint"], changed["endpoint"]) == ("asked", None, "groq")
    assert_no_difference(harness)


def test_an_answer_that_begins_again_at_an_endpoint_is_billed_there_alone(harness):
    started = harness.start("one two three", model="asked")
    crash_at(harness, started, engine_of(LOCAL, "a ", "b ", "c "), 2)

    finish(harness, started, engine_of(CORP, "x ", continues=False))

    # The endpoint has another name for the model, and the price of the model asked for
    assert segments(harness, started) == [("70b", "corp", 3, 1)]
    assert amount(harness, started) == price(CORP, 3, 1)
    assert [each["discarded_tokens"] for each in events(harness, started, ANSWER_RESTARTED)] == [2]
    assert_no_difference(harness)


def test_the_prompt_belongs_to_the_first_engine_whose_tokens_are_kept(harness):
    started = harness.start("one two three", model="asked")
    crash_at(harness, started, engine_of(CORP, "a "), 0)
    crash_at(harness, started, engine_of(GROQ, "a ", "b "), 1)

    finish(harness, started, engine_of(LOCAL, "b "))

    assert segments(harness, started) == [("8b-instant", "groq", 3, 1), ("asked", "", 0, 1)]
    assert_no_difference(harness)


def test_a_turn_of_one_local_engine_has_no_segments(harness):
    started = harness.start("one two three", model="asked")

    finish(harness, started, engine_of(LOCAL, "a "))

    assert segments(harness, started) == []
    assert amount(harness, started) == price(LOCAL, 3, 1)


def test_an_endpoint_without_a_price_has_that_of_the_model_asked_for(harness):
    started = harness.start("one", model="asked")

    finish(harness, started, engine_of(FREE, "a "))

    assert amount(harness, started) == price(FREE, 1, 1)


def test_a_replay_replaces_the_segments(harness):
    # Given a dead turn that two engines have served
    started = harness.start("one two three", model="asked")
    crash_at(harness, started, engine_of(LOCAL, "a ", "b "), 1)
    crash_at(harness, started, engine_of(GROQ, "b ", "c "), 1)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.end(attempt, "dead", {"code": "x", "message": "x"}))
    assert len(segments(harness, started)) == 2

    # When it runs again on an engine that begins again
    with harness.database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id = %s", (started.response.job_id,)
        )
    finish(harness, started, engine_of(LOCAL, "x ", continues=False))

    # Then only what is kept is billed
    assert segments(harness, started) == []
    assert amount(harness, started) == price(LOCAL, 3, 1)
    assert_no_difference(harness)


def run_at_random(harness, rng):
    """Run a turn with attempts of random engines, of which each dies or is cancelled or ends.

    Returns the turn and what it should cost.
    """
    started = harness.start("one two three", model="asked")
    kept = []  # the engine of each journalled token that is part of the answer
    last = LOCAL
    while True:
        last, continues = rng.choice([LOCAL, CORP, GROQ, FREE]), rng.random() < 0.6
        engine = engine_of(last, *[f"w{index} " for index in range(rng.randrange(1, 5))], continues=continues)
        if not continues:
            kept = []
        attempt, fault, at = (
            harness.attempt(started),
            rng.choice(["none", "crash", "crash", "cancel"]),
            rng.randrange(5),
        )

        def fault_at(position, fault=fault, at=at, attempt=attempt):
            if position == at and fault == "crash":
                raise Crash
            if position == at and fault == "cancel":
                attempt.stop("cancelled")

        engine.before_token = fault_at
        tokens = min(at, len(engine.outputs)) if fault != "none" else len(engine.outputs)
        kept += [last] * tokens
        try:
            ending = turn.run(engine, attempt)
        except Crash:
            harness.crash_worker(attempt)
            continue
        except Cancelled:
            ending = turn.end(attempt, "cancelled", None)
        harness.settle(attempt, ending)
        first = kept[0] if kept else last
        return started, price(first, 3, 0) + sum(price(name, 0, count) for name, count in Counter(kept).items())


def test_any_interleaving_of_engines_restarts_and_cancels_is_billed_exactly(harness):
    rng = random.Random(20261128)

    for _ in range(150):
        started, expected = run_at_random(harness, rng)
        assert amount(harness, started) == expected, segments(harness, started)

    assert_no_difference(harness)

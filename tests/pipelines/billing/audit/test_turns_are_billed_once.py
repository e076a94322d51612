"""A thousand turns of two models and an endpoint, killed, cancelled and failed at random: the audit finds nothing."""

import random
from decimal import Decimal

import pytest

from models.accounts.plans import Allowance
from models.billing import billing_details, spending
from models.jobs.cancellation import cancel
from models.jobs.ended_jobs import move_batch
from models.platform.database import fetch_all, fetch_one
from models.platform.errors import Cancelled, SpendingLimitReached
from models.platform.ids import new_id
from pipelines.billing.audit.money import differences
from pipelines.chat import turn
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.start_turn import new_turn_ids, start_turn
from pipelines.inference.engine import EngineError
from tests.databases import new_database
from tests.pipelines.chat.conftest import REQUEST, FakeEngine, TurnHarness

#: Turns, and the most attempts of one.
TURNS, MOST_ATTEMPTS = 1000, 4

#: The limit in a month, which most turns fit.
LIMIT = Decimal("3.5")

INSERT_PRICE = """
INSERT INTO prices (id, model, endpoint, service_class, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, %s, %s, 'EUR', %s, %s, %s, '2026-01-01')
"""

PRICES = [
    ("small", "", "standard", 10, 1, 70), ("small", "", "batch", 5, 0, 30), ("large", "", "standard", 300, 30, 900),
    ("large", "groq", "standard", 500, 50, 1500),
]  # fmt: skip

MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


class Crash(Exception):
    """The worker dies."""


def new_engine(name, endpoint, rng):
    """An engine of random answers; that of an endpoint cannot continue them."""
    engine = FakeEngine(*[f"w{index} " for index in range(rng.randrange(1, 12))], continues=not endpoint)
    engine.name, engine.endpoint = name, endpoint
    return engine


@pytest.fixture
def harness(postgres, redis_client):
    """An account with prices and a limit, in a database of its own: the audit reads all of it."""
    with new_database(postgres) as database:
        harness = TurnHarness(database, redis_client)
        with database.transaction() as connection:
            for price in PRICES:
                connection.execute(INSERT_PRICE, (new_id("price"), *price))
            billing_details.ensure(connection, harness.caller.account_id, "EUR")
            spending.set_limit(connection, harness.caller.account_id, "", LIMIT)
        yield harness
        harness.writer.stop()


def start(harness, rng, model):
    request = {**REQUEST, "model": model, "max_output_tokens": 10, "service_tier": rng.choice([None, "flex"])}
    new, allowance = NewTurn(request, [{**MESSAGE, "id": new_id("msg")}]), Allowance(context=100, billed=True)
    return start_turn(harness.database, harness.caller, new, *new_turn_ids(), allowance)


def attempt_once(harness, rng, engine, started):
    """Run an attempt, which may be killed, fail or be cancelled before any token. Returns whether the turn ended."""
    attempt, fault, at = (
        harness.attempt(started),
        rng.choice(["none", "none", "crash", "cancel", "fail"]),
        rng.randrange(12),
    )

    def fault_at(position):
        if position != at or fault == "none":
            return
        if fault == "cancel":
            attempt.stop("cancelled")
        elif fault == "crash":
            raise Crash
        else:
            raise EngineError("a fault")

    engine.before_token = fault_at
    try:
        ending = turn.run(engine, attempt)
    except (Crash, EngineError):
        harness.crash_worker(attempt)
        return False
    except Cancelled:
        ending = turn.end(attempt, "cancelled", None, engine.endpoint)
    if rng.random() < 0.1:  # it dies before the commit of its end
        harness.crash_worker(attempt)
        return False
    harness.settle(attempt, ending)
    return True


def run_turn(harness, rng):
    """Start a turn, and run attempts until it ends; after the last one it is dead. Returns whether it was admitted."""
    model, endpoint = rng.choice([("small", ""), ("large", ""), ("large", "groq")])
    engine = new_engine(model, endpoint, rng)
    try:
        started = start(harness, rng, model)
    except SpendingLimitReached:
        return False
    if rng.random() < 0.1:  # cancelled in the queue
        with harness.database.transaction() as connection:
            cancel(connection, started.response.job_id, harness.caller.account_id)
        return True
    if not any(attempt_once(harness, rng, engine, started) for _ in range(MOST_ATTEMPTS)):
        attempt = harness.attempt(started)
        harness.settle(attempt, turn.end(attempt, "dead", {"code": "x", "message": "x"}, engine.endpoint))
    return True


def test_a_thousand_turns_with_faults_leave_books_without_a_difference(harness):
    # Given turns of which each is killed, cancelled, failed or answered
    rng = random.Random(20261128)
    admitted = sum(run_turn(harness, rng) for _ in range(TURNS))
    account_id = harness.caller.account_id

    # Then no reservation is left, the limit was not exceeded, and it refused some
    of_states = "SELECT DISTINCT state FROM jobs WHERE kind = 'turn.run'"
    of_restarts = "SELECT count(*) AS restarts FROM job_events WHERE events LIKE '%answer.restarted%'"
    with harness.database.connection() as connection:
        now = spending.monthly_spending(connection, account_id)
        states = {row["state"] for row in fetch_all(connection, of_states)}
        restarts = fetch_one(connection, of_restarts)["restarts"]
    assert now.reserved == 0
    assert LIMIT * Decimal("0.8") < now.spent <= LIMIT
    assert TURNS / 2 < admitted < TURNS
    assert states == {"completed", "cancelled", "dead"}
    assert restarts > 10

    # And the audit finds no difference, also once the turns have moved to the archive
    for _ in range(2):
        with harness.database.transaction() as connection:
            assert list(differences(connection)) == []
        with harness.database.transaction() as connection:
            connection.execute("UPDATE jobs SET finished_at = finished_at - interval '3 days' WHERE state <> 'dead'")
            connection.execute("UPDATE responses SET unremembered = false")
            while move_batch(connection, 500, age=0).moved:
                pass

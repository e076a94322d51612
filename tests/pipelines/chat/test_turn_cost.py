"""A turn costs what it has journalled, however it ends."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from models.billing import billing_details
from models.billing.postings import balances
from models.platform.database import fetch_one
from models.platform.ids import new_id
from pipelines.chat import turn

INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, 'EUR', 100, 50, 1000, %s)
"""

RECORD = "SELECT billed_amount, billed_user_id, billed_key_id FROM usage_records WHERE job_id = %s"


@pytest.fixture
def model(harness):
    """A model that costs 100 a million tokens of input, 50 cached and 1,000 of output; the account is billed."""
    name, account_id = new_id("model"), harness.caller.account_id
    with harness.database.transaction() as connection:
        connection.execute(INSERT_PRICE, (new_id("price"), name, datetime(2026, 1, 1, tzinfo=UTC)))
        billing_details.ensure(connection, account_id, "EUR")
    yield name
    with harness.database.connection() as connection:
        connection.execute("DELETE FROM postings WHERE account_id = %s", (account_id,))


def cost(input_tokens, cached_tokens, output_tokens):
    return ((input_tokens - cached_tokens) * 100 + cached_tokens * 50 + output_tokens * 1000) * Decimal("0.000001")


def record(harness, started):
    with harness.database.connection() as connection:
        found = fetch_one(connection, RECORD, (started.response.job_id,))
        posted = balances(connection, harness.caller.account_id)
    assert posted.get(("usage_unbilled", "EUR")) == found["billed_amount"]
    return found


def test_a_completed_turn_posts_its_cost_for_its_user_and_key(harness, fake_engine, model):
    harness.caller = replace(harness.caller, key_id="key_1")
    started = harness.start("one two three", model=model)
    attempt = harness.attempt(started)

    harness.settle(attempt, turn.run(fake_engine("a ", "b "), attempt))

    assert record(harness, started) == {
        "billed_amount": cost(3, 0, 2), "billed_user_id": harness.caller.user_id, "billed_key_id": "key_1",
    }  # fmt: skip


@pytest.mark.parametrize("state", ["failed", "cancelled", "dead"])
def test_a_turn_that_did_not_complete_posts_what_was_journalled(harness, fake_engine, model, state):
    # Given a turn whose engine fails after two tokens
    started = harness.start("one two three", model=model)
    attempt, engine = harness.attempt(started), fake_engine("a ", "b ")
    engine.error = RuntimeError("the engine broke")
    with pytest.raises(RuntimeError):
        turn.run(engine, attempt)

    # When it ends
    harness.settle(attempt, turn.end(attempt, state, {"code": "server_error", "message": "it broke"}))

    # Then its cost is that of its journalled tokens
    ((input_tokens, cached_tokens, output_tokens),) = harness.billed(started)
    assert output_tokens == 2
    assert record(harness, started)["billed_amount"] == cost(input_tokens, cached_tokens, output_tokens) > 0


def test_a_turn_that_survives_its_worker_is_posted_once(harness, fake_engine, model):
    started = harness.start("one two three", model=model)
    attempt, engine = harness.attempt(started), fake_engine("a ", "b ")
    engine.error = RuntimeError("the worker was killed")
    with pytest.raises(RuntimeError):
        turn.run(engine, attempt)
    harness.crash_worker(attempt)

    second = harness.attempt(started)
    harness.settle(second, turn.run(fake_engine("c "), second))

    ((input_tokens, cached_tokens, output_tokens),) = harness.billed(started)
    assert output_tokens == 3
    assert record(harness, started)["billed_amount"] == cost(input_tokens, cached_tokens, output_tokens)

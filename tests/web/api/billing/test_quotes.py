"""`POST /v1/quotes`: the least and the most that a response costs."""

import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from models.billing import billing_details
from models.platform.errors import Unavailable
from models.platform.ids import new_id
from pipelines.inference.registry import model_name
from tests.web.api_client import assert_error
from web.api.billing import quotes

PATH = "/v1/quotes"

INSERT_PRICE = """
INSERT INTO prices (id, model, endpoint, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, %s, 'SEK', %s, 1, %s, %s)
"""


@pytest.fixture
def prices(user, settings):
    """Two prices of the served model in crowns: any endpoint's, and a higher one of one endpoint."""
    ids = [new_id("price"), new_id("price")]
    began = datetime(2026, 1, 1, tzinfo=UTC)
    with user.database.transaction() as connection:
        billing_details.ensure(connection, user.caller.account_id, "SEK")
        for id_, endpoint, amounts in zip(ids, ("", "groq"), ((2, 10), (4, 20)), strict=True):
            connection.execute(INSERT_PRICE, (id_, model_name(settings), endpoint, *amounts, began))
    yield ids
    with user.database.connection() as connection:
        connection.execute("DELETE FROM prices WHERE id = ANY (%s)", (ids,))


@pytest.fixture
def counted(monkeypatch):
    """Let the engine count 1,000 tokens."""

    async def run_prompt_job(*args, **kwargs):
        return {"input_tokens": 1000}

    monkeypatch.setattr(quotes, "run_prompt_job", run_prompt_job)


@pytest.fixture
def uncounted(monkeypatch):
    """Let no worker be free to count."""

    async def run_prompt_job(*args, **kwargs):
        raise Unavailable("No worker is free.")

    monkeypatch.setattr(quotes, "run_prompt_job", run_prompt_job)


def quote(user, **fields):
    answer = user.request("POST", PATH, json={"input": "hello", "memory": {"recall": False}, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_quote_has_the_least_and_the_most_at_the_dearest_endpoint(user, prices, counted):
    quoted = quote(user, max_output_tokens=100)

    assert (quoted["currency"], quoted["input_tokens"], quoted["input_tokens_counted"]) == ("SEK", 1000, True)
    assert quoted["max_output_tokens"] == 100
    assert Decimal(quoted["lowest_cost"]) == Decimal("0.001")
    assert Decimal(quoted["highest_cost"]) == Decimal("0.004") + Decimal("0.002")
    assert {price["id"] for price in quoted["prices"]} == set(prices)
    assert 50 <= quoted["valid_until"] - time.time() <= 70


def test_without_a_count_the_input_is_bounded_by_its_bytes(user, prices, uncounted):
    quoted = quote(user, max_output_tokens=100)

    assert not quoted["input_tokens_counted"]
    assert 5 <= quoted["input_tokens"] < 1000
    assert quoted["lowest_cost"] == "0.00"
    assert quoted["highest_cost"] == quoted["reserved"]


def test_recalled_memories_may_add_to_the_input(user, prices, counted):
    without, with_recall = quote(user, max_output_tokens=10), quote(user, max_output_tokens=10, memory=None)

    assert Decimal(with_recall["highest_cost"]) > Decimal(without["highest_cost"])


def test_a_model_without_a_price_is_free(user, counted):
    quoted = quote(user)

    assert (quoted["prices"], quoted["highest_cost"], quoted["reserved"]) == ([], "0.00", "0.00")


def test_an_invalid_request_gets_the_error_that_its_response_would_get(user, counted):
    assert_error(user.request("POST", PATH, json={"input": "x", "model": "nobody"}), 404, code="model_not_found")
    assert_error(user.request("POST", PATH, json={"input": "x", "max_output_tokens": 0}), 400)


def test_a_quote_creates_and_reserves_nothing(user, prices, counted):
    user.request("PUT", "/billing/spending_limits/account", json={"amount": "5"})

    quote(user)

    (limit,) = user.request("GET", "/billing/spending_limits").json()["data"]
    assert limit["reserved"] == "0.00"


def test_a_quote_of_a_tier_has_the_prices_of_its_class(user, prices, counted, settings):
    price_id = new_id("price")
    insert = INSERT_PRICE.replace("(id, model, ", "(service_class, id, model, ").replace(
        "VALUES (", "VALUES ('batch', "
    )
    with user.database.connection() as connection:
        connection.execute(insert, (price_id, model_name(settings), "", 1, 5, datetime(2026, 1, 1, tzinfo=UTC)))
    try:
        flex, standard = (quote(user, max_output_tokens=100, service_tier=tier) for tier in ("flex", "auto"))
    finally:
        with user.database.connection() as connection:
            connection.execute("DELETE FROM prices WHERE id = %s", (price_id,))

    assert [price["service_class"] for price in flex["prices"]] == ["batch"]
    assert (flex["service_tier"], flex["highest_cost"]) == ("flex", "0.0015")
    assert (standard["service_tier"], standard["highest_cost"]) == ("default", "0.006")

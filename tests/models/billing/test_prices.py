"""Prices apply from their time on, and never change what was before."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.billing.prices import (
    NOTICE_SECONDS,
    NewPrice,
    Price,
    add_price,
    highest_cost,
    list_current,
    list_prices,
    price_at,
    prices_in_force,
)
from models.platform.errors import Conflict, InvalidRequest
from models.platform.ids import new_id
from models.serving import served_models
from models.serving.served_models import ModelDescription

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def model():
    return new_id("model")


@pytest.fixture
def insert(database, model):
    """Insert a price that began in the past."""

    def insert(input="1", output="2", cached="0.1", *, endpoint="", service_class="standard", begins=BEGAN, of=model):
        price = Price(new_id("price"), of, endpoint, service_class, "EUR", Decimal(input), Decimal(cached),
                      Decimal(output), begins, begins)  # fmt: skip
        with database.connection() as connection:
            connection.execute(
                "INSERT INTO prices (id, model, endpoint, service_class, currency, input, cached_input, output, "
                "valid_from, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (price.id, price.model, endpoint, service_class, "EUR", price.input, price.cached_input, price.output,
                 begins, begins),
            )  # fmt: skip
        return price

    return insert


def new(model, **fields):
    return NewPrice(**{"model": model, "currency": "EUR", "input": Decimal(1), "output": Decimal(2), **fields})


def test_the_price_in_force_is_the_newest_that_has_begun(database, model, insert):
    # Given two prices, the second from a day later
    first, second = insert("1"), insert("2", begins=BEGAN + timedelta(days=1))

    # When the price is looked up at several times, Then each time has its own
    with database.connection() as connection:
        at = [price_at(connection, model, "EUR", BEGAN + timedelta(hours=hours)) for hours in (-1, 0, 23, 24, 99)]
        assert at == [None, first, first, second, second]
        assert price_at(connection, model, "USD", BEGAN) is None


def test_a_price_of_the_endpoint_and_of_the_class_comes_before_a_general_one(database, model, insert):
    insert("1", begins=BEGAN + timedelta(days=1))
    own = insert("3", endpoint="groq")
    batch = insert("0.5", service_class="batch")

    with database.connection() as connection:
        assert price_at(connection, model, "EUR", None, endpoint="groq") == own
        assert price_at(connection, model, "EUR", None, endpoint="groq", service_class="batch") == batch
        assert price_at(connection, model, "EUR", None, service_class="priority").input == 1
        assert {price.input for price in prices_in_force(connection, model, "EUR")} == {1, 3}


@pytest.mark.parametrize(("takes_spilled", "most"), [(True, 5), (False, 1)])
def test_the_price_of_a_model_that_waiting_turns_are_moved_to_is_reserved(database, model, insert, takes_spilled, most):
    # Given a dearer model of an endpoint
    insert("1")
    other, endpoint = new_id("model"), new_id("end")
    insert("5", of=other, endpoint=endpoint)
    description = ModelDescription(other, endpoint, takes_spilled=takes_spilled)
    with database.connection() as connection:
        served_models.register(connection, description, f"upstream.{endpoint}")
        # When the prices are read that a turn of the first model may have
        in_force = prices_in_force(connection, model, "EUR")
        connection.execute("DELETE FROM served_models WHERE model_name = %s", (other,))
    # Then the other one's is among them if turns are moved to it
    assert max(price.input for price in in_force) == most


def test_cached_tokens_are_part_of_the_input_and_priced_apart(insert):
    price = insert("1", "10", cached="0.25")

    assert price.cost(1_000_000, 400_000, 100_000) == Decimal("0.6") + Decimal("0.1") + Decimal("1")


tokens = st.integers(0, 10**12)
amounts = st.decimals(0, 1_000_000, places=8)


@given(tokens, tokens, tokens, amounts, amounts, amounts)
def test_costs_are_exact(other, cached, output, price, cached_price, output_price):
    row = Price("price", "m", "", "standard", "EUR", price, cached_price, output_price, BEGAN, BEGAN)

    expected = other * int(price * 10**8) + cached * int(cached_price * 10**8) + output * int(output_price * 10**8)
    cost = row.cost(other + cached, cached, output)
    # A sum of three products may have more digits than a product has: at these bounds the result is still exact.
    assert abs(int(cost.scaleb(14)) - expected) <= expected // 10**27


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000), amounts, amounts)
def test_no_split_of_the_context_costs_more_than_the_highest_cost(input_tokens, output, context, price, output_price):
    row = Price("price", "m", "", "standard", "EUR", price, price, output_price, BEGAN, BEGAN)
    highest = highest_cost([row], input_tokens, output, context)

    for used in {0, min(input_tokens, context), max(min(context - output, input_tokens), 0)}:
        assert row.cost(used, 0, min(output, context - used)) <= highest


def test_a_first_price_begins_at_once_and_another_one_after_the_notice(database, model):
    with database.transaction() as connection:
        first = add_price(connection, new(model))
    with database.transaction() as connection:
        second = add_price(connection, new(model, input=Decimal(5)))

        assert timedelta(0) <= second.valid_from - first.valid_from - timedelta(seconds=NOTICE_SECONDS)
        assert price_at(connection, model, "EUR", None) == first
        assert [price for price in list_current(connection, "EUR") if price.model == model] == [second, first]
        assert list_prices(connection, model=model) == [second, first]


def test_a_replaced_price_is_listed_only_in_the_history(database, model, insert):
    old, newer = insert("1"), insert("2", begins=BEGAN + timedelta(days=1))

    with database.connection() as connection:
        assert [price.id for price in list_current(connection, "EUR") if price.model == model] == [newer.id]
        assert {price.id for price in list_prices(connection, model=model)} == {old.id, newer.id}


@pytest.mark.parametrize(("seconds", "message"), [(-1, "in the past"), (NOTICE_SECONDS - 5, "replaces one in force")])
def test_a_price_never_applies_to_the_past(database, model, insert, seconds, message):
    insert()
    begins = datetime.now(UTC) + timedelta(seconds=seconds)

    with pytest.raises(InvalidRequest, match=message) as error, database.transaction() as connection:
        add_price(connection, new(model, valid_from=begins))

    assert error.value.param == "valid_from"


def test_two_prices_cannot_begin_at_the_same_time(database, model):
    begins = datetime.now(UTC) + timedelta(days=1)
    with database.transaction() as connection:
        add_price(connection, new(model, valid_from=begins))

    with pytest.raises(Conflict), database.transaction() as connection:
        add_price(connection, new(model, valid_from=begins, input=Decimal(9)))


@pytest.mark.parametrize("amount", ["-1", "1000001", "0.123456789", "NaN", "Infinity"])
def test_amounts_outside_the_limits_are_rejected_with_their_name(database, model, amount):
    with pytest.raises(InvalidRequest) as error, database.transaction() as connection:
        add_price(connection, new(model, cached_input=Decimal(amount)))

    assert error.value.param == "cached_input"


def test_an_unknown_currency_is_rejected(database, model):
    with pytest.raises(InvalidRequest), database.transaction() as connection:
        add_price(connection, new(model, currency="XXX"))

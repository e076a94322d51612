"""Operators set prices; accounts read those of their currency."""

import time
from decimal import Decimal

import pytest

from models.billing import billing_details
from models.platform.ids import new_id
from tests.web.api_client import assert_error

PATH = "/admin/billing/prices"


@pytest.fixture
def model():
    return new_id("model")


def prices_of(user, model, path="/v1/prices"):
    """Return the prices of a model, of all pages."""
    found, after = [], None
    while True:
        page = user.request("GET", path, params={"limit": 100, **({"after": after} if after else {})}).json()
        found += [price for price in page["data"] if price["model"] == model]
        after = page["last_id"]
        if not page["has_more"]:
            return found


def test_a_price_that_an_operator_sets_is_listed_for_accounts_of_its_currency(operator, user, other_user, model):
    # Given an account that pays in euros and one that does not
    with user.database.transaction() as connection:
        billing_details.ensure(connection, user.caller.account_id, "EUR")

    # When an operator sets a price in euros
    body = {"model": model, "currency": "eur", "input": "0.20", "cached_input": "0.05", "output": 1}
    price = operator.request("PUT", PATH, json=body).json()

    # Then the first sees it, with decimal strings
    assert {name: price[name] for name in ("object", "endpoint", "service_class", "currency")} == {
        "object": "price", "endpoint": None, "service_class": "standard", "currency": "EUR",
    }  # fmt: skip
    assert (price["input"], price["cached_input"], price["output"]) == ("0.20", "0.05", "1.00")
    assert prices_of(user, model) == [price]
    assert prices_of(other_user, model) == []


def test_a_change_is_announced_and_the_price_in_force_stays(operator, user, model):
    with user.database.transaction() as connection:
        billing_details.ensure(connection, user.caller.account_id, "EUR")
    body = {"model": model, "currency": "EUR", "input": "0.20", "output": "1"}
    first = operator.request("PUT", PATH, json=body).json()

    begins = int(time.time()) + 86_400
    second = operator.request("PUT", PATH, json={**body, "input": "0.30", "valid_from": begins}).json()

    assert second["valid_from"] == begins
    assert prices_of(user, model) == [second, first]
    listed = operator.request("GET", PATH, params={"model": model, "currency": "eur"}).json()["data"]
    assert listed == [second, first]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"valid_from": 1_600_000_000}, "valid_from"),
        ({"input": "-0.01"}, "input"),
        ({"input": 0.2}, "input"),
        ({"output": "1e3"}, "output"),
        ({"currency": "XXX"}, "currency"),
        ({"service_class": "gold"}, "service_class"),
        ({"model": ""}, "model"),
    ],
)
def test_what_is_wrong_with_a_price_is_named(operator, model, change, param):
    body = {"model": model, "currency": "EUR", "input": "0.20", "output": "1", **change}

    assert_error(operator.request("PUT", PATH, json=body), 400, param=param)


def test_only_operators_set_prices_and_each_change_is_audited(operator, user, model):
    body = {"model": model, "currency": "EUR", "input": "0.20", "output": "1"}

    assert_error(user.request("PUT", PATH, json=body), 403, code="operator_required")
    price = operator.request("PUT", PATH, json=body).json()

    events = operator.request("GET", "/v1/audit_events").json()["data"]
    (event,) = [event for event in events if event["action"] == "price.added"]
    assert event["target"] == price["id"]
    assert Decimal(event["details"]["input"]) == Decimal("0.20")

"""Spending limits of an account and of its API keys."""

from datetime import UTC, datetime

import pytest

from models.accounts.accounts import Scope
from models.platform.ids import new_id
from pipelines.inference.registry import model_name
from tests.web.api_client import assert_error

PATH = "/billing/spending_limits"

INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, 'CHF', 1000, 1000, 1000, %s)
"""

DELETE_PRICE = "DELETE FROM prices WHERE id = %s"


@pytest.fixture
def priced(user, settings):
    """Let tokens of the served model cost 1 per thousand, for an account that pays in francs."""
    price_id = new_id("price")
    with user.database.connection() as connection:
        connection.execute(INSERT_PRICE, (price_id, model_name(settings), datetime(2026, 1, 1, tzinfo=UTC)))
        connection.execute("INSERT INTO billing_details (account_id, currency) VALUES (%s, 'CHF')",
                           (user.caller.account_id,))  # fmt: skip
        connection.execute("UPDATE accounts SET billed_since = now() WHERE id = %s", (user.caller.account_id,))
    yield
    with user.database.connection() as connection:
        connection.execute(DELETE_PRICE, (price_id,))


def test_a_limit_is_set_read_and_removed(user, priced):
    limit = user.request("PUT", f"{PATH}/account", json={"amount": "12.50"}).json()

    assert limit == {
        "object": "spending_limit", "id": "account", "amount": "12.50", "currency": "CHF", "spent": "0.00",
        "reserved": "0.00", "notified_percent": 0,
    }  # fmt: skip
    assert user.request("GET", PATH).json()["data"] == [limit]
    assert user.request("DELETE", f"{PATH}/account").json()["deleted"]
    assert user.request("GET", PATH).json()["data"] == []
    assert_error(user.request("DELETE", f"{PATH}/account"), 404)
    actions = [event["action"] for event in user.request("GET", "/v1/audit_events").json()["data"]]
    assert actions[:2] == ["spending_limit.removed", "spending_limit.set"]


def test_a_turn_that_may_cost_more_than_is_left_is_a_402_and_is_not_created(user, priced):
    # Given a limit that one turn of at most 1,000 tokens fits
    user.request("PUT", f"{PATH}/account", json={"amount": "1.50"})
    turn = user.create_response(max_output_tokens=1000)
    (limit,) = user.request("GET", PATH).json()["data"]
    assert "1.00" < limit["reserved"] < "1.50"

    # When another one is requested
    body = {"input": "x", "background": True, "max_output_tokens": 1000}
    answer = user.request("POST", "/v1/responses", json=body)

    # Then it is rejected with the amounts
    message = assert_error(answer, 402, code="spending_limit_reached")
    assert answer.headers["x-should-retry"] == "false"
    assert all(part in message for part in ("1.50 CHF per month", "0 are spent", limit["reserved"]))

    # When the first one is cancelled, Then its reservation is available again
    user.request("POST", f"/v1/responses/{turn['id']}/cancel")
    assert user.request("POST", "/v1/responses", json=body).status_code == 200


def test_a_turn_of_a_conversation_reserves_the_whole_context(user, priced):
    user.request("PUT", f"{PATH}/account", json={"amount": "3.00"})
    first = user.create_response(max_output_tokens=16)

    body = {"input": "x", "background": True, "max_output_tokens": 16, "previous_response_id": first["id"]}

    assert_error(user.request("POST", "/v1/responses", json=body), 402, code="spending_limit_reached")


def test_embeddings_are_limited_too(user, priced, settings):
    from pipelines.inference.registry import embedder_name

    price_id = new_id("price")
    with user.database.connection() as connection:
        connection.execute(INSERT_PRICE, (price_id, embedder_name(settings), datetime(2026, 1, 1, tzinfo=UTC)))
    user.request("PUT", f"{PATH}/account", json={"amount": "0.00"})

    answer = user.request("POST", "/v1/embeddings", json={"input": "x", "model": "default"})

    with user.database.connection() as connection:
        connection.execute(DELETE_PRICE, (price_id,))
    assert_error(answer, 402, code="spending_limit_reached")


def test_a_limit_of_a_key_counts_the_key_only(principals, database):
    key = principals.request("owner", "POST", "/v1/api_keys", json={"name": "app", "scopes": ["inference"]}).json()

    limit = principals.request("owner", "PUT", f"{PATH}/key:{key['id']}", json={"amount": "5"})

    assert limit.json()["id"] == f"key:{key['id']}"
    other = principals.request("other owner", "PUT", f"{PATH}/key:{key['id']}", json={"amount": "5"})
    assert_error(other, 404, param="scope")


@pytest.mark.parametrize("scope", ["", "plan", "agent:x", "key", "key:", "everything"])
def test_an_unknown_scope_is_not_found(user, scope):
    assert user.request("PUT", f"{PATH}/{scope}", json={"amount": "5"}).status_code in (404, 405)


@pytest.mark.parametrize("amount", ["-1", "0.001", 5.0, True, "5,00", "1000000001", "NaN", None])
def test_an_amount_that_cannot_be_paid_is_rejected(user, amount):
    assert_error(user.request("PUT", f"{PATH}/account", json={"amount": amount}), 400, param="amount")


def test_members_and_keys_without_the_scope_cannot_change_limits(principals):
    for principal, code in (("member", "forbidden"), (f"{Scope.ADMIN} key", "insufficient_scope")):
        answer = principals.request(principal, "PUT", f"{PATH}/account", json={"amount": "5"})
        assert_error(answer, 403, code=code)

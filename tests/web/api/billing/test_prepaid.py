"""An account that pays in advance is admitted as far as its included usage and credits go, on each route that costs."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from models.billing import billing_details
from models.platform.ids import new_id
from models.schedules.schedules import set_next_fire
from pipelines.billing import grants
from pipelines.inference.registry import embedder_name, model_name
from pipelines.schedules.firing import fire_due
from tests.web.api_client import assert_error

PLAN = {"name": "Prepaid", "limits": {}, "fee": "0", "currency": "NOK", "overage": {"mode": "none"}}

INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from) VALUES (%s, %s, 'NOK', %s, %s, %s, %s)
"""


@pytest.fixture
def priced(user, settings):
    """Let tokens of both served models cost 1 per thousand, for an account that pays in crowns."""
    ids = [new_id("price"), new_id("price")]
    with user.database.transaction() as connection:
        for id_, model in zip(ids, (model_name(settings), embedder_name(settings)), strict=True):
            connection.execute(INSERT_PRICE, (id_, model, 1000, 1000, 1000, datetime(2026, 1, 1, tzinfo=UTC)))
        billing_details.ensure(connection, user.caller.account_id, "NOK")
        connection.execute(
            "UPDATE users SET email_verified_at = now() WHERE id = %s AND email_verified_at IS NULL",
            (user.caller.user_id,),
        )
    yield
    with user.database.connection() as connection:
        connection.execute("DELETE FROM prices WHERE id = ANY (%s)", (ids,))


@pytest.fixture
def subscribe(user, operator, priced):
    """`subscribe(included)` gives the user a plan without overage."""

    def subscribe(included):
        plan_id = new_id("plan")
        plan = operator.request("PUT", f"/admin/plans/{plan_id}", json={**PLAN, "included_amount": included}).json()
        assert plan["overage"] == {"mode": "none", "tiers": []}
        answer = user.request("POST", "/billing/subscribe", json={"plan": plan_id})
        assert answer.status_code == 200, answer.text

    return subscribe


@pytest.fixture
def give(user):
    def give(amount):
        with user.database.transaction() as connection:
            grants.give(connection, user.caller.account_id, Decimal(amount), reason="welcome")

    return give


REQUESTS = {
    "a response": ("/v1/responses", {"input": "x", "background": True}),
    "a streamed response": ("/v1/responses", {"input": "x", "stream": True}),
    "a chat completion": ("/v1/chat/completions", {"model": "default", "messages": [{"role": "user", "content": "x"}]}),
    "a completion": ("/v1/completions", {"model": "default", "prompt": "x"}),
    "embeddings": ("/v1/embeddings", {"model": "default", "input": "x"}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_is_not_paid_for_is_a_402_that_says_what_to_do(user, subscribe, name):
    subscribe("0")
    path, body = REQUESTS[name]

    answer = user.request("POST", path, json=body)

    message = assert_error(answer, 402, code="insufficient_credits")
    assert answer.headers["x-should-retry"] == "false"
    assert all(part in message for part in ("0.00 NOK of credits", "/billing/credits/top_up"))
    assert user.jobs() == []


def test_a_turn_is_admitted_as_far_as_included_usage_and_credits_go(user, subscribe, give):
    # Given what one turn of at most 1,000 tokens needs
    subscribe("1.00")
    body = {"input": "x", "background": True, "max_output_tokens": 1000}
    assert_error(user.request("POST", "/v1/responses", json=body), 402, code="insufficient_credits")
    give("0.50")

    # When several are requested at once
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: user.request("POST", "/v1/responses", json=body), range(8)))

    # Then one is admitted
    assert sorted(answer.status_code for answer in answers) == [200, *[402] * 7]


def test_choices_of_a_request_are_admitted_together_or_not_at_all(user, subscribe):
    subscribe("1.50")
    body = {"model": "default", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000, "n": 2}

    assert_error(user.request("POST", "/v1/chat/completions", json=body), 402, code="insufficient_credits")
    assert user.jobs() == []


def test_a_schedule_does_not_start_what_is_not_paid_for(user, subscribe, settings, database):
    subscribe("0")
    work = {"kind": "turn", "request": {"input": "hello"}}
    body = {"name": "x", "trigger": {"type": "interval", "seconds": 3600}, "work": work}
    schedule = user.request("POST", "/v1/schedules", json=body).json()

    with database.transaction() as connection:
        row = connection.execute("SELECT date_trunc('second', now()) AS now").fetchone()
        set_next_fire(connection, schedule["id"], row["now"], row["now"])
    list(fire_due(database, settings, ["turn"]))

    (firing,) = user.request("GET", f"/v1/schedules/{schedule['id']}/firings").json()["data"]
    assert (firing["status"], firing["error"]["code"]) == ("refused", "insufficient_credits")


@pytest.mark.parametrize("overage", [{"mode": "none", "tiers": [{"up_to": None, "factor": "1"}]}, {"mode": "volume"}])
def test_a_plan_has_either_tiers_or_no_overage(operator, overage):
    answer = operator.request("PUT", f"/admin/plans/{new_id('plan')}", json={**PLAN, "overage": overage})

    assert_error(answer, 400, param="overage")

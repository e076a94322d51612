"""`/billing/subscribe`, `/billing/subscription`, `/billing/plans` and `/admin/plans`."""

from decimal import Decimal

import pytest

from models.billing import payments, settlement
from models.billing.payments import PaymentOutcome
from models.platform.ids import new_id
from models.schedules.schedules import database_time
from tests.web.api_client import assert_error

BODY = {"name": "Pro", "limits": {"streams": 5}, "fee": "19.00", "currency": "eur"}


@pytest.fixture
def put(operator):
    """`put(fee="5.00")` → the plan, with the fields changed."""

    def put(plan_id=None, **fields):
        plan_id = plan_id or new_id("plan")
        return operator.request("PUT", f"/admin/plans/{plan_id}", json=BODY | fields)

    return put


@pytest.fixture
def plan(put):
    """The id of a plan with a fee."""
    return put().json()["id"]


def pay(database, confirmation, account_id):
    """Let the payment of a confirmation succeed."""
    with database.transaction() as connection:
        payment = payments.read(connection, confirmation["payment"]["id"], account_id)
        outcome = PaymentOutcome("succeeded", new_id("ch"), database_time(connection))
        settlement.settle(connection, payment, outcome)


def test_subscribing_is_confirmed_with_what_it_has_led_to(user, plan, database):
    answer = user.request("POST", "/billing/subscribe", json={"plan": plan})

    confirmation = answer.json()
    assert answer.status_code == 200
    assert (confirmation["subscription"]["state"], confirmation["invoice"]["state"]) == ("incomplete", "open")
    payment, job_id = confirmation["payment"], confirmation["job"]["id"]
    assert (payment["state"], payment["amount"], payment["currency"]) == ("pending", "19.00", "EUR")
    assert confirmation["events_url"] == f"/v1/jobs/{job_id}/events"
    assert user.request("GET", f"/v1/jobs/{job_id}").json()["kind"] == "payment.charge"

    pay(database, confirmation, user.caller.account_id)
    assert user.request("GET", "/billing/subscription").json()["state"] == "active"
    assert user.request("GET", "/v1/account").json()["limits"]["streams"] == 5


def test_a_preferred_wait_ends_without_a_worker_and_is_named(user, plan):
    answer = user.request("POST", "/billing/subscribe", json={"plan": plan}, headers={"prefer": "wait=1"})

    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.json()["payment"]["state"] == "pending"


def test_an_idempotency_key_subscribes_once_and_shows_the_present_state(user, plan, database):
    options = {"json": {"plan": plan}, "headers": {"idempotency-key": new_id("key")}}
    first = user.request("POST", "/billing/subscribe", **options).json()
    pay(database, first, user.caller.account_id)

    again = user.request("POST", "/billing/subscribe", **options).json()

    assert again["payment"]["id"] == first["payment"]["id"]
    assert (again["subscription"]["state"], again["payment"]["state"]) == ("active", "succeeded")


def test_refusals_have_codes(user, put, plan, database):
    assert_error(user.request("POST", "/billing/subscribe", json={"plan": "nothing"}), 404, code="plan_not_found")
    assert_error(user.request("GET", "/billing/subscription"), 404, code="no_subscription")
    assert_error(user.request("POST", "/billing/subscription/resume"), 404, code="no_subscription")
    pay(database, user.request("POST", "/billing/subscribe", json={"plan": plan}).json(), user.caller.account_id)
    again = user.request("POST", "/billing/subscribe", json={"plan": plan})
    assert_error(again, 409, code="subscription_exists")
    dollars = put(currency="USD").json()["id"]
    change = user.request("PATCH", "/billing/subscription", json={"plan": dollars})
    assert_error(change, 409, code="currency_mismatch")


def test_a_payment_method_of_another_account_is_not_found(user, plan):
    body = {"plan": plan, "payment_method_id": "pm_of_another"}

    assert_error(user.request("POST", "/billing/subscribe", json=body), 404, param="payment_method_id")
    assert_error(user.request("GET", "/billing/subscription"), 404)


def test_cancelling_and_resuming(user, put):
    free = put(fee="0").json()["id"]
    subscribed = user.request("POST", "/billing/subscribe", json={"plan": free}).json()
    assert (subscribed["payment"], subscribed["job"], subscribed["invoice"]) == (None, None, None)

    assert user.request("POST", "/billing/subscription/cancel").json()["cancel_at_period_end"] is True
    assert user.request("POST", "/billing/subscription/resume").json()["cancel_at_period_end"] is False
    ended = user.request("POST", "/billing/subscription/cancel", json={"when": "now"}).json()
    assert (ended["state"], ended["end_reason"]) == ("ended", "cancelled")
    assert user.request("GET", "/billing/subscription").json()["state"] == "ended"


def test_changing_the_plan(user, put, plan, database):
    small = put(fee="0").json()["id"]
    user.request("POST", "/billing/subscribe", json={"plan": small})

    later = user.request("PATCH", "/billing/subscription", json={"plan": plan, "when": "period_end"}).json()
    assert later["subscription"]["next_plan"] == {"id": plan, "version": 1}
    now = user.request("PATCH", "/billing/subscription", json={"plan": plan}).json()

    assert now["subscription"]["plan"]["id"] == plan
    assert Decimal("18.99") <= Decimal(now["payment"]["amount"]) <= 19


def test_every_change_of_a_plan_is_a_version(operator, put, plan):
    assert put(plan).json()["version"] == 1
    changed = put(
        plan, fee="29.00", trial_days=7, included_amount="10", spending_limit="100.00", models=["b", "a"],
        overage={"mode": "volume", "tiers": [{"up_to": "50", "factor": "1"}, {"up_to": None, "factor": "0.8"}]},
    ).json()  # fmt: skip

    assert (changed["version"], changed["fee"], changed["models"]) == (2, "29.00", ["a", "b"])
    assert changed["overage"]["tiers"][1] == {"up_to": None, "factor": "0.8"}
    versions = operator.request("GET", f"/admin/plans/{plan}/versions").json()["data"]
    assert [(each["version"], each["fee"]) for each in versions] == [(2, "29.00"), (1, "19.00")]
    assert_error(operator.request("GET", "/admin/plans/nothing/versions"), 404, code="plan_not_found")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"fee": "-1"}, "fee"),
        ({"fee": 1.5}, "fee"),
        ({"fee": "19.001"}, "fee"),
        ({"fee": "1.5", "currency": "JPY"}, "fee"),
        ({"currency": "XXX"}, "currency"),
        ({"period": "week"}, "period"),
        ({"trial_days": 1000}, "trial_days"),
        ({"overage": {"mode": "graduated", "tiers": [{"up_to": "5", "factor": "1"}]}}, "overage"),
        ({"overage": {"mode": "graduated", "tiers": []}}, "overage.tiers"),
    ],
)
def test_odd_plans_are_rejected_by_field(put, fields, param):
    assert_error(put(**fields), 400, param=param)


def test_customers_see_the_plans_that_have_a_fee_or_are_public(user, put):
    offered, free = put().json()["id"], put(fee="0").json()["id"]
    hidden = put(public=False).json()["id"]

    seen = {each["id"] for each in user.request("GET", "/billing/plans").json()["data"]}

    assert seen >= {offered, free}
    assert seen.isdisjoint({hidden, "default", "unverified"})


def test_a_plan_restricts_the_models(user, put):
    restricted = put(fee="0", models=["another"]).json()["id"]
    user.request("POST", "/billing/subscribe", json={"plan": restricted})

    for path, body in (("responses", {"input": "x"}), ("chat/completions", {"messages": []}), ("embeddings", {})):
        body |= {"model": "default", "messages": [{"role": "user", "content": "x"}]} if "chat" in path else {}
        body |= {"model": "default", "input": "x"} if path == "embeddings" else {}
        assert_error(user.request("POST", f"/v1/{path}", json=body), 403, code="model_not_allowed")
    assert user.request("GET", "/v1/models").json()["data"] == []


def test_an_open_invoice_is_paid_by_one_payment_at_a_time(user, plan, database):
    first = user.request("POST", "/billing/subscribe", json={"plan": plan}).json()
    path = f"/billing/invoices/{first['invoice']['id']}/pay"
    assert_error(user.request("POST", path, json={}), 409, code="payment_pending")
    with database.transaction() as connection:
        payment = payments.read(connection, first["payment"]["id"], user.caller.account_id)
        failed = PaymentOutcome("failed", new_id("ch"), database_time(connection), error={"code": "x", "message": "y"})
        settlement.settle(connection, payment, failed)

    again = user.request("POST", path, json={})

    assert (again.status_code, again.json()["payment"]["state"]) == (200, "pending")
    pay(database, again.json(), user.caller.account_id)
    assert user.request("GET", "/billing/subscription").json()["state"] == "active"
    assert_error(user.request("POST", path, json={}), 409, code="invoice_state")

"""A customer subscribes, uses and pays: from the request to the books."""

from typing import Any

import httpx
import pytest

from bench.harness.waiting import wait_until
from models.platform.ids import new_id
from pipelines.billing.audit.money import differences
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

PLAN = {
    "name": "Pro",
    "limits": {"streams": 5},
    "fee": "19.00",
    "currency": "EUR",
    "included_amount": "5.00",
    "overage": {"mode": "graduated", "tiers": [{"up_to": None, "factor": "1"}]},
}

#: The default plan of new accounts; a plan of an e-mail address that is not verified limits what a test does.
MAKE_OPERATOR = "UPDATE users SET operator = true WHERE email = %s RETURNING id"

LEDGER = """
SELECT kind, debit, credit, amount::text FROM postings WHERE account_id = %s AND kind <> 'usage' ORDER BY id
"""


@pytest.fixture
def operator(stack: Installation) -> AccountOwner:
    """An operator of the installation."""
    operator = AccountOwner(stack)
    stack.rows(MAKE_OPERATOR, operator.email)
    return operator


@pytest.fixture
def plan(operator: AccountOwner) -> str:
    """The id of a plan with a fee."""
    answer = operator.request("PUT", f"/admin/plans/{new_id('plan')}", json=PLAN)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def worker(stack: Installation) -> None:
    """A worker of the pool billing, beside the one with the engine."""
    stack.start_worker("", "billing", "delivery")


def add_method(user: AccountOwner, method: str) -> None:
    """Add a payment method of the simulated gateway."""
    answer = user.request("POST", "/billing/payment_methods", json={"method": method})
    assert answer.status_code == 201, answer.text


def subscribe(user: AccountOwner, plan: str, **headers: str) -> httpx.Response:
    """Subscribe to a plan."""
    url = f"{user.installation.addresses()[0]}/billing/subscribe"
    return httpx.post(url, json={"plan": plan}, headers=user.headers | headers, timeout=90)


def follow(user: AccountOwner, path: str) -> list[str]:
    """Return the types of the events of a job, until its end."""
    url = user.installation.addresses()[0] + path
    with httpx.stream("GET", url, headers=user.headers, timeout=60) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("event: ")]
    return [line.removeprefix("event: ") for line in lines]


def audit(stack: Installation) -> list[Any]:
    """Return the differences that `sangha audit money` would print."""
    with stack.database.transaction() as connection:
        return list(differences(connection))


@ON_REDIS
def test_a_subscription_is_sold_paid_invoiced_and_proved(
    stack: Installation, user: AccountOwner, plan: str, worker: None
):
    # Given a payment method
    add_method(user, "pm_test_visa")

    # When the customer subscribes
    answer = subscribe(user, plan)
    assert answer.status_code == 200, answer.text
    confirmation = answer.json()
    payment_id, job_id = confirmation["payment"]["id"], confirmation["job"]["id"]

    # Then polling and the stream tell that the payment succeeded
    events = follow(user, confirmation["events_url"])
    wait_until(lambda: user.get(f"/v1/jobs/{job_id}")["state"] == "completed")
    assert events[-2:] == ["sangha:payment.succeeded", "sangha:job.completed"]
    assert user.get(f"/billing/payments/{payment_id}")["state"] == "succeeded"
    assert user.get("/billing/subscription")["state"] == "active"
    assert user.get("/v1/account")["limits"]["streams"] == 5

    # And the books have the transaction
    ledger = [tuple(row.values()) for row in stack.rows(LEDGER, user.account)]
    assert ledger[:2] == [
        ("invoice", "receivable", "revenue", "19.00"),
        ("payment", "gateway", "receivable", "19.00"),
    ]

    # And the invoice is a PDF, and nothing differs
    (invoice,) = user.get("/billing/invoices")["data"]
    assert (invoice["state"], invoice["total"]) == ("paid", "19.00")
    assert user.request("GET", f"/billing/invoices/{invoice['id']}/pdf").content.startswith(b"%PDF-")
    assert audit(stack) == []


@ON_REDIS
def test_a_request_waits_for_its_payment(user: AccountOwner, plan: str, worker: None):
    add_method(user, "pm_test_visa")

    answer = subscribe(user, plan, prefer="wait=30")

    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.json()["payment"]["state"] == "succeeded"
    assert answer.json()["subscription"]["state"] == "active"


@ON_REDIS
def test_an_ended_period_is_renewed_by_the_clock_once(stack: Installation, user: AccountOwner, plan: str, worker: None):
    # Given a subscription whose period has ended
    add_method(user, "pm_test_visa")
    assert subscribe(user, plan, prefer="wait=30").json()["subscription"]["state"] == "active"
    stack.rows(
        """UPDATE subscriptions SET started_at = started_at - interval '1 month' - interval '3 days',
                  period_start = period_start - interval '1 month' - interval '3 days',
                  version_since = version_since - interval '1 month' - interval '3 days',
                  period_end = now() - interval '1 hour'
           WHERE account_id = %s RETURNING id""",
        user.account,
    )

    # When the timetable looks for it, each minute
    def renewed() -> bool:
        invoices = user.get("/billing/invoices")["data"]
        return len(invoices) == 2 and all(invoice["state"] == "paid" for invoice in invoices)

    wait_until(renewed, 120)

    # Then it was invoiced and paid once
    assert user.get("/billing/subscription")["period_end"] > user.get("/billing/subscription")["created_at"]
    assert [
        row["count"]
        for row in stack.rows(
            "SELECT count(*) AS count FROM simulated_objects WHERE customer = %s AND kind = 'charge'", user.account
        )
    ] == [2]
    assert audit(stack) == []


@ON_REDIS
def test_failed_payments_are_tried_again_until_it_is_unpaid_and_a_payment_restores_it(
    stack: Installation, user: AccountOwner, operator: AccountOwner, plan: str, worker: None
):
    # Given a change to a larger plan, with a card that is declined
    add_method(user, "pm_test_visa")
    assert subscribe(user, plan, prefer="wait=30").json()["subscription"]["state"] == "active"
    larger = {**PLAN, "name": "Max", "fee": "99.00", "limits": {"streams": 50}}
    other = operator.request("PUT", f"/admin/plans/{new_id('plan')}", json=larger).json()["id"]
    add_method(user, "pm_test_declined")
    use_method(user, "Visa 0002")
    assert user.request("PATCH", "/billing/subscription", json={"plan": other}).status_code == 200
    wait_until(lambda: user.get("/billing/subscription")["state"] == "past_due")
    assert user.get("/v1/account")["limits"]["streams"] == 5

    # When all tries fail
    for tries in range(2, 6):
        make_due(stack, user)
        wait_until(lambda tries=tries: failures(user) == tries)  # type: ignore[misc]

    # Then it is unpaid, until the invoice is paid
    wait_until(lambda: user.get("/billing/subscription")["state"] == "unpaid")
    invoice = next(each for each in user.get("/billing/invoices")["data"] if each["state"] == "open")
    use_method(user, "Visa 4242")
    user.post(f"/billing/invoices/{invoice['id']}/pay", {})
    wait_until(lambda: user.get("/billing/subscription")["state"] == "active")
    assert user.get("/v1/account")["limits"]["streams"] == 50
    assert audit(stack) == []


def use_method(user: AccountOwner, label: str) -> None:
    """Make a payment method the default."""
    (method,) = [each for each in user.get("/billing/payment_methods")["data"] if each["label"] == label]
    assert user.request("POST", f"/billing/payment_methods/{method['id']}/default").status_code == 200


def make_due(stack: Installation, user: AccountOwner) -> None:
    """Let the days pass until the next try of a payment."""
    statement = """
        UPDATE jobs SET run_at = now() WHERE account_id = %s AND kind = 'invoice.collect' AND state = 'scheduled'
        RETURNING id"""
    wait_until(lambda: stack.rows(statement, user.account))


def failures(user: AccountOwner) -> int:
    """Return the number of payments that failed."""
    return len([each for each in user.get("/billing/payments")["data"] if each["state"] == "failed"])

"""`/billing/payments`, for the account and for operators."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from models.billing import billing_details, invoices, payments, postings
from pipelines.billing import invoicing
from tests.web.api_client import assert_error


def test_payments_are_listed_newest_first_with_amounts_as_strings(user, pay):
    first, second = pay(user, "12.50"), pay(user, "3.00", paid=True)

    page = user.request("GET", "/billing/payments").json()

    assert [(each["id"], each["amount"], each["state"]) for each in page["data"]] == [
        (second.id, "3.00", "succeeded"),
        (first.id, "12.50", "pending"),
    ]
    assert [each["id"] for each in user.request("GET", "/billing/payments?state=pending").json()["data"]] == [first.id]


def test_payment_of_another_account_does_not_exist(user, other_user, pay):
    payment = pay(other_user)

    assert_error(user.request("GET", f"/billing/payments/{payment.id}"), 404, code="not_found")


@pytest.mark.parametrize(
    ("amount", "code"), [("-1.00", "invalid_request"), ("0", "invalid_request"), (1.5, "amount"), ("1.001", None),
                         ("1e3", "amount"), ("9" * 20, None), ("12.51", "refund_too_large"), (True, "amount"),
                         ("NaN", "amount"), (" 1", "amount")]
)  # fmt: skip
def test_refund_of_an_impossible_amount_is_rejected(user, operator, pay, amount, code):
    payment = pay(user, paid=True)

    answer = operator.request("POST", f"/admin/billing/payments/{payment.id}/refund", json={"amount": amount})

    assert answer.status_code in (400, 409), answer.text
    assert code in (None, "amount", answer.json()["error"]["code"])
    assert user.request("GET", f"/billing/payments/{payment.id}").json()["refunds"] == []


def test_refund_of_a_part_and_of_the_rest(user, operator, pay):
    payment = pay(user, paid=True)
    path = f"/admin/billing/payments/{payment.id}/refund"

    part = operator.request("POST", path, json={"amount": "2.50", "reason": "outage"})
    rest = operator.request("POST", path, json={})

    assert (part.status_code, part.json()["amount"], part.json()["state"]) == (201, "2.50", "pending")
    assert rest.json()["amount"] == "10.00"
    assert_error(operator.request("POST", path, json={}), 409, code="refund_too_large")
    shown = user.request("GET", f"/billing/payments/{payment.id}").json()
    assert (shown["refunded"], [each["amount"] for each in shown["refunds"]]) == ("12.50", ["2.50", "10.00"])


def test_concurrent_refunds_never_exceed_the_payment(user, operator, pay):
    # Given a payment that has room for 12 refunds of 1.00
    payment = pay(user, paid=True)

    # When 64 are requested at a time
    def refund(_):
        body = {"amount": "1.00"}
        return operator.request("POST", f"/admin/billing/payments/{payment.id}/refund", json=body).status_code

    with ThreadPoolExecutor(64) as pool:
        statuses = list(pool.map(refund, range(64)))

    # Then twelve are accepted
    assert (statuses.count(201), statuses.count(409)) == (12, 52)
    assert user.request("GET", f"/billing/payments/{payment.id}").json()["refunded"] == "12.00"


def test_refund_of_a_pending_payment_is_refused(user, operator, pay):
    path = f"/admin/billing/payments/{pay(user).id}/refund"

    assert_error(operator.request("POST", path, json={}), 409, code="payment_not_refundable")


def test_refund_of_an_invoice_has_a_credit_note(user, operator, pay, database):
    # Given a paid invoice
    with database.transaction() as connection:
        billing_details.ensure(connection, user.caller.account_id, "EUR")
        line = invoicing.NewLine("fee", "A month", Decimal("12.50"))
        invoice = invoicing.issue(connection, user.caller.account_id, reason="subscription", lines=[line])
    payment = pay(user, paid=True, invoice_id=invoice.id)

    # When a part of its payment is refunded
    body = {"amount": "5.00", "reason": "outage"}
    refund = operator.request("POST", f"/admin/billing/payments/{payment.id}/refund", json=body).json()

    # Then a credit note says so
    assert refund["credit_note_id"].startswith("cn_")
    with database.connection() as connection:
        assert invoices.read(connection, invoice.id, user.caller.account_id).credited == Decimal("5.00")


def test_marking_a_payment_as_paid_settles_it_once(user, operator, pay, database):
    payment = pay(user, gateway="manual")
    path = f"/admin/billing/payments/{payment.id}/mark_paid"

    answers = [operator.request("POST", path, json={"reference": "bank 17"}).json() for _ in range(2)]

    assert [answer["state"] for answer in answers] == ["succeeded", "succeeded"]
    with database.connection() as connection:
        balance = postings.balances(connection, user.caller.account_id)["receivable", "EUR"]
    assert balance == Decimal("-12.50")


def test_a_payment_of_another_gateway_cannot_be_marked_as_paid(user, operator, pay):
    path = f"/admin/billing/payments/{pay(user).id}/mark_paid"

    assert_error(operator.request("POST", path, json={}), 409, code="not_manual")


def test_the_job_of_a_payment_cannot_be_cancelled(user, database, pay):
    payment = pay(user, gateway="manual")
    with database.transaction() as connection:
        payment = payments.request_payment(
            connection, user.caller.account_id, invoice_id=None, amount=Decimal(1), currency="EUR", gateway="manual"
        )

    answer = user.request("POST", f"/v1/jobs/{payment.job_id}/cancel")

    assert_error(answer, 409, code="not_cancellable")

"""`/billing`: details, invoices, credit notes and credits."""

from decimal import Decimal

import pytest

from models.billing import usage_lines
from models.billing.invoice_lines import NewLine
from pipelines.billing import draft, invoicing
from tests.pipelines.billing.books import PERIOD_END, PERIOD_START, check_books, give, pay, read_invoice, use
from tests.web.api_client import assert_error

DETAILS = {"currency": "eur", "name": "Ada & <b>Co</b>", "address": "Street 1\n12345 Town", "country": "FR"}


@pytest.fixture
def customer(user, operator):
    """A user whose account has billing details with 20 % tax."""
    assert user.request("PUT", "/billing/details", json=DETAILS).status_code == 200
    tax = {"name": "VAT", "rate": "20", "note": "Reverse charge"}
    path = f"/admin/billing/accounts/{user.caller.account_id}/tax"
    assert operator.request("PUT", path, json=tax).status_code == 200
    return user


@pytest.fixture
def invoice(customer, database):
    """An open invoice of a plan and of usage."""
    return invoice_of(database, customer.caller.account_id, NewLine("fee", "The plan", Decimal(10)))


def invoice_of(database, account_id, *lines):
    """Invoice lines and the usage of the period."""
    use(database, account_id, ["1.5", "2.5"], agent="helper")
    with database.transaction() as connection:
        started, _ = invoicing.start_draft(
            connection, account_id, reason="renewal", subscription_id=None, period_start=PERIOD_START,
            period_end=PERIOD_END, lines=lines,
        )  # fmt: skip
        usage_lines.assign(connection, started.id, account_id)
        return draft.finish(connection, started.id, account_id, None)


def test_reading_details_creates_none(user, database):
    read = user.request("GET", "/billing/details").json()

    assert (read["currency"], read["created_at"]) == ("USD", None)
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT billed_since FROM accounts WHERE id = %s", (user.caller.account_id,)
        ).fetchall()
    assert [row["billed_since"] for row in rows] == [None]


def test_details_are_changed_field_by_field(customer):
    changed = customer.request("PUT", "/billing/details", json={"tax_id": "FR 1", "email": "pay@example.com"}).json()

    expected = DETAILS | {"currency": "EUR", "tax_id": "FR 1", "email": "pay@example.com"}
    assert {name: changed[name] for name in expected} == expected
    assert changed["tax"] == {"name": "VAT", "rate": "20", "note": "Reverse charge"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"currency": "XXX"}, "currency"),
        ({"country": "Germany"}, "country"),
        ({"email": "nobody"}, "email"),
        ({"name": "a\nb"}, "name"),
        ({"tax_rate": "0"}, "tax_rate"),
        ({"gateway_customers": {}}, "gateway_customers"),
    ],
)
def test_odd_details_are_rejected_by_field(user, body, param):
    assert_error(user.request("PUT", "/billing/details", json=body), 400, param=param)


def test_the_currency_is_fixed_once_something_was_billed(customer, invoice):
    answer = customer.request("PUT", "/billing/details", json={"currency": "USD"})

    assert_error(answer, 400, param="currency")
    assert customer.request("PUT", "/billing/details", json={"currency": "EUR"}).status_code == 200


def test_the_currency_can_be_changed_before_that(customer):
    assert customer.request("PUT", "/billing/details", json={"currency": "JPY"}).json()["currency"] == "JPY"


def test_an_invoice_is_read_with_its_lines(customer, invoice):
    read = customer.request("GET", f"/billing/invoices/{invoice.id}").json()

    assert [(line["kind"], line["amount"]) for line in read["lines"]] == [("fee", "10.00"), ("usage", "4.00")]
    assert (read["subtotal"], read["tax"], read["total"], read["amount_due"]) == ("14.00", "2.80", "16.80", "16.80")
    assert read["parties"]["customer"]["name"] == DETAILS["name"]
    [listed] = customer.request("GET", "/billing/invoices?state=open").json()["data"]
    assert listed == {name: read[name] for name in listed}
    assert customer.request("GET", "/billing/invoices?state=paid").json()["data"] == []


def test_a_line_leads_to_its_jobs(customer, invoice):
    path = f"/billing/invoices/{invoice.id}/usage"
    first = customer.request("GET", f"{path}?line=2&limit=1").json()
    second = customer.request("GET", f"{path}?line=2&limit=1&after={first['last_id']}").json()

    found = [usage["amount"] for page in (first, second) for usage in page["data"]]
    assert (found, first["has_more"], second["has_more"]) == (["1.5", "2.5"], True, False)
    assert first["data"][0]["agent"] == "helper"
    assert customer.request("GET", f"{path}?line=1").json()["data"] == []
    assert len(customer.request("GET", path).json()["data"]) == 2


def test_the_page_escapes_names_and_loads_nothing(customer, invoice):
    page = customer.request("GET", f"/billing/invoices/{invoice.id}/html")

    assert "Ada &amp; &lt;b&gt;Co&lt;/b&gt;" in page.text
    assert "<b>" not in page.text
    assert "Reverse charge" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_pdf_is_the_same_after_the_payment(customer, invoice, database):
    path = f"/billing/invoices/{invoice.id}/pdf"
    before = customer.request("GET", path)
    pay(database, customer.caller.account_id, invoice)
    customer.request("PUT", "/billing/details", json={"name": "Somebody else"})

    after = customer.request("GET", path)

    assert before.content.startswith(b"%PDF")
    assert before.content == after.content
    assert after.headers["content-disposition"] == f'inline; filename="invoice-{invoice.number}.pdf"'


def test_a_draft_has_no_page(customer, database):
    with database.transaction() as connection:
        started, _ = invoicing.start_draft(
            connection, customer.caller.account_id, reason="renewal", subscription_id=None,
            period_start=PERIOD_START, period_end=PERIOD_END, lines=[],
        )  # fmt: skip

    for kind in ("html", "pdf"):
        assert_error(customer.request("GET", f"/billing/invoices/{started.id}/{kind}"), 409, code="invoice_state")


def test_a_top_up_with_one_key_is_charged_once(customer, database):
    # Given
    headers, body = {"idempotency-key": "top-up"}, {"amount": "20"}

    # When
    first = customer.request("POST", "/billing/credits/top_up", json=body, headers=headers)
    second = customer.request("POST", "/billing/credits/top_up", json=body, headers=headers)
    with database.connection() as connection:  # as if the process had crashed before it stored the response
        connection.execute(
            "UPDATE idempotency_keys SET status = NULL, headers = NULL, body = NULL, locked_until = now()"
            " WHERE account_id = %s",
            (customer.caller.account_id,),
        )
    third = customer.request("POST", "/billing/credits/top_up", json=body, headers=headers)

    # Then
    assert first.status_code == 200, first.text
    assert first.json() == second.json() == third.json()
    assert first.json()["invoice"]["amount_due"] == "20.00"
    assert first.json()["payment"]["state"] == "pending"
    assert len(customer.request("GET", "/billing/invoices").json()["data"]) == 1
    check_books(database, customer.caller.account_id)


@pytest.mark.parametrize("amount", ["-1", "0", "0.001", 1.5, "1e3", "NaN", "99999999999", True, None])
def test_an_odd_amount_is_rejected(customer, amount):
    assert_error(customer.request("POST", "/billing/credits/top_up", json={"amount": amount}), 400, param="amount")


def test_credits_show_what_is_available(customer, operator, database):
    # Given a credit of 10, and usage of 4
    account_id = customer.caller.account_id
    body = {"amount": "10", "reason": "welcome", "expires_at": 4_000_000_000}
    given = operator.request("POST", f"/admin/billing/accounts/{account_id}/credits", json=body)
    assert given.status_code == 201, given.text
    use(database, account_id, ["4.005"])

    # When
    read = customer.request("GET", "/billing/credits").json()

    # Then
    assert (read["balance"], read["unbilled_usage"], read["available"]) == ("10.00", "4.005", "5.995")
    assert [grant["id"] for grant in read["grants"]["data"]] == [given.json()["id"]]
    actions = [event["action"] for event in customer.request("GET", "/v1/audit_events").json()["data"]]
    assert "credits.given" in actions


def test_automatic_top_ups_are_set_and_removed(customer):
    rule = {"below": "5", "amount": "20", "monthly_limit": "100"}

    put = customer.request("PUT", "/billing/credits/auto_top_up", json=rule)
    expected = {"below": "5.00", "amount": "20.00", "monthly_limit": "100.00"}
    assert put.json()["auto_top_up"] == customer.request("GET", "/billing/credits").json()["auto_top_up"] == expected
    low = rule | {"monthly_limit": "10"}
    assert_error(customer.request("PUT", "/billing/credits/auto_top_up", json=low), 400, param="monthly_limit")

    assert customer.request("DELETE", "/billing/credits/auto_top_up").json()["auto_top_up"] is None


def test_operators_void_and_write_off(customer, invoice, operator, database):
    path = f"/admin/billing/invoices/{invoice.id}"
    assert operator.request("POST", f"{path}/write_off").json()["state"] == "uncollectible"
    assert operator.request("POST", f"{path}/void").json()["state"] == "void"
    assert_error(operator.request("POST", f"{path}/write_off"), 409, code="invoice_state")
    listed = operator.request("GET", f"/admin/billing/invoices?account_id={customer.caller.account_id}").json()["data"]
    assert [each["state"] for each in listed] == ["void"]
    check_books(database, customer.caller.account_id)


def test_a_credit_note_refunds_a_payment(customer, invoice, operator, database):
    # Given a paid invoice
    pay(database, customer.caller.account_id, invoice)
    path, body = f"/admin/billing/invoices/{invoice.id}/credit_notes", {"amount": "6", "reason": "an outage"}

    # When
    note = operator.request("POST", path, json=body, headers={"idempotency-key": "note"})

    # Then
    assert note.status_code == 201, note.text
    assert (note.json()["amount"], note.json()["tax"]) == ("6.00", "1.00")
    read = customer.request("GET", f"/billing/credit_notes/{note.json()['id']}").json()
    assert read == note.json() == customer.request("GET", f"/billing/invoices/{invoice.id}").json()["credit_notes"][0]
    assert customer.request("GET", f"/billing/credit_notes/{read['id']}/pdf").content.startswith(b"%PDF")
    page = customer.request("GET", f"/billing/credit_notes/{read['id']}/html")
    assert f"Credit note {read['number']}" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    with database.connection() as connection:
        refunds = connection.execute(
            "SELECT amount, state, credit_note_id FROM refunds WHERE account_id = %s", (customer.caller.account_id,)
        ).fetchall()
    assert refunds == [{"amount": 6, "state": "pending", "credit_note_id": read["id"]}]
    assert read_invoice(database, invoice).credited == 6
    check_books(database, customer.caller.account_id)


def test_either_an_amount_or_a_job_is_credited(customer, invoice, operator):
    path, body = f"/admin/billing/invoices/{invoice.id}/credit_notes", {"amount": "6", "reason": "x", "job_id": "job_1"}

    assert_error(operator.request("POST", path, json=body), 400, param="job_id")


def test_the_seller_is_changed_for_later_invoices(customer, operator, database):
    before = operator.request("GET", "/admin/billing/seller").json()
    try:
        changed = operator.request("PUT", "/admin/billing/seller", json={"name": "We", "invoice_prefix": "A-"}).json()
        issued = invoice_of(database, customer.caller.account_id)
    finally:
        operator.request("PUT", "/admin/billing/seller", json={"name": before["name"], "invoice_prefix": "INV-"})

    assert changed == before | {"name": "We", "invoice_prefix": "A-"}
    assert issued.number.startswith("A-")
    assert issued.parties["seller"]["name"] == "We"


def test_another_account_sees_nothing(customer, invoice, other_user, database):
    give(database, customer.caller.account_id, "5")

    for path in ("", "/html", "/pdf", "/usage?line=2"):
        assert_error(other_user.request("GET", f"/billing/invoices/{invoice.id}{path}"), 404)
    assert other_user.request("GET", "/billing/invoices").json()["data"] == []
    assert other_user.request("GET", "/billing/credits").json()["grants"]["data"] == []

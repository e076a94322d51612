"""Credit notes."""

from decimal import Decimal

import pytest

from models.billing import credit_notes, credits, invoice_states, payments, refunds
from models.billing.billing_details import ensure
from models.billing.invoice_lines import NewLine
from models.billing.refunds import RefundOutcome
from models.platform.errors import Conflict, InvalidRequest, NotFound
from pipelines.billing import credit_note, draft, invoicing
from pipelines.billing.audit import money
from tests.pipelines.billing.books import (
    PERIOD_END,
    PERIOD_START,
    balance,
    check_books,
    credit,
    give,
    new_customer,
    pay,
    read_invoice,
    use,
)


def issue(database, account_id, amount, kind="fee"):
    reason = "top_up" if kind == "top_up" else "subscription"
    line = NewLine(kind, "a line", Decimal(amount))
    with database.transaction() as connection:
        return invoicing.issue(connection, account_id, reason=reason, lines=[line])


def invoice_usage(database, account_id):
    """Invoice the usage of the period."""
    with database.transaction() as connection:
        started, _ = invoicing.start_draft(
            connection, account_id, reason="usage", subscription_id=None, period_start=PERIOD_START,
            period_end=PERIOD_END, lines=[],
        )  # fmt: skip
        draft.usage_lines.assign(connection, started.id, account_id)
        return draft.finish(connection, started.id, account_id, None)


def test_parts_of_an_invoice_add_up_to_its_tax(database):
    # Given an invoice of 10.00 with 19 % tax that is not paid
    account_id = new_customer(database, tax_rate="19")
    invoice = issue(database, account_id, "10")

    # When it is credited in three parts
    notes = [credit(database, account_id, invoice, amount) for amount in ("3.33", "3.33", None)]

    # Then
    assert sum(note.amount for note in notes) == invoice.total
    assert sum(note.tax for note in notes) == invoice.tax
    assert read_invoice(database, invoice).state == "paid"
    with database.connection() as connection:
        assert balance(connection, account_id, "receivable") == 0
        assert balance(connection, account_id, "tax") == 0
    check_books(database, account_id)


def test_what_was_paid_is_refunded(database):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "10")
    pay(database, account_id, invoice, "6")

    # When a part is credited that is not paid, and then one that is
    credit(database, account_id, invoice, "3")
    assert read_invoice(database, invoice).amount_due == 1
    credit(database, account_id, invoice, "5")

    # Then
    with database.connection() as connection:
        assert balance(connection, account_id, "gateway") == 2
    check_books(database, account_id)


def test_what_credits_paid_becomes_a_credit_again(database):
    # Given an invoice of 10 of which credits paid 4
    account_id = new_customer(database)
    give(database, account_id, "4")
    invoice = issue(database, account_id, "10")
    pay(database, account_id, invoice)

    # When
    credit(database, account_id, invoice)

    # Then
    with database.connection() as connection:
        assert credits.balance(connection, ensure(connection, account_id)) == 4
        assert balance(connection, account_id, "gateway") == 0
    check_books(database, account_id)


def test_no_more_than_is_left_is_credited(database):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "10")
    credit(database, account_id, invoice, "9")

    with pytest.raises(InvalidRequest):
        credit(database, account_id, invoice, "1.01")
    credit(database, account_id, invoice, "1.00")
    with pytest.raises(Conflict):
        credit(database, account_id, invoice)
    check_books(database, account_id)


@pytest.mark.parametrize("amount", ["-1", "0.001", "NaN", "1e30"])
def test_odd_amounts_are_rejected(database, amount):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "10")

    with pytest.raises(InvalidRequest):
        credit(database, account_id, invoice, Decimal(amount))


def test_an_invoice_with_a_credit_note_is_not_voided(database):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "10")
    credit(database, account_id, invoice, "1")

    with pytest.raises(Conflict), database.transaction() as connection:
        invoice_states.void(connection, invoice.id, account_id)


def test_a_job_is_credited_once_with_its_tax(database):
    # Given an invoice with three jobs
    account_id = new_customer(database, tax_rate="20")
    job, other, free = use(database, account_id, ["1.001", "2", "0"])
    invoice = invoice_usage(database, account_id)

    # When one of them is credited
    note = credit(database, account_id, invoice, job_id=job)

    # Then its fraction of a cent is rounded in favour of the customer
    assert (note.amount, note.tax, note.job_id) == (Decimal("1.21"), Decimal("0.20"), job)
    for job_id, error in ((job, Conflict), (free, InvalidRequest), ("job_unknown", NotFound)):
        with pytest.raises(error):
            credit(database, account_id, invoice, job_id=job_id)
    with pytest.raises(NotFound):
        credit(database, account_id, issue(database, account_id, "5"), job_id=other)
    check_books(database, account_id)


def test_only_what_is_left_of_a_top_up_is_refunded(database):
    # Given a top-up of 20 of which 5 were drawn
    account_id = new_customer(database)
    top_up = issue(database, account_id, "20", "top_up")
    with pytest.raises(Conflict):
        credit(database, account_id, top_up)
    pay(database, account_id, top_up)
    issue(database, account_id, "5")

    # When
    with pytest.raises(Conflict):
        credit(database, account_id, top_up, "15.01")
    credit(database, account_id, top_up, "15")

    # Then
    with database.connection() as connection:
        assert credits.balance(connection, ensure(connection, account_id)) == 0
        assert balance(connection, account_id, "gateway") == 5
    check_books(database, account_id)


def refund_at_the_gateway(database, payment, amount, state="succeeded"):
    """Hear of a refund that was made at the gateway itself."""
    outcome = RefundOutcome(state, f"re_{payment.id}")
    with database.transaction() as connection:
        refund = refunds.add_foreign(connection, payment, Decimal(amount), outcome)
        refund = credit_note.of_foreign_refund(connection, payment, refund)
        refunds.settle(connection, refund, outcome)


def payment_of(database, invoice):
    with database.connection() as connection:
        return payments.list_payments(connection, invoice.account_id, invoice_id=invoice.id)[0]


def test_a_refund_that_was_made_at_the_gateway_gets_a_credit_note(database):
    # Given an invoice of which 6 were paid
    account_id = new_customer(database, tax_rate="20")
    invoice = issue(database, account_id, "10")
    pay(database, account_id, invoice, "6")

    # When 2 of them are refunded there, and it is told twice
    for state in ("pending", "succeeded", "succeeded"):
        refund_at_the_gateway(database, payment_of(database, invoice), "2", state)
        check_books(database, account_id)

    # Then these are not due, and the rest still is
    with database.connection() as connection:
        [note] = credit_notes.list_of_invoice(connection, invoice.id, account_id)
    assert note.amount == 2
    assert read_invoice(database, invoice).amount_due == 6


def test_the_refund_of_credits_that_were_drawn_has_no_credit_note(database):
    # Given a top-up whose credits were drawn
    account_id = new_customer(database)
    top_up = issue(database, account_id, "20", "top_up")
    pay(database, account_id, top_up)
    issue(database, account_id, "15")

    # When it is refunded at the gateway
    refund_at_the_gateway(database, payment_of(database, top_up), "20")

    # Then the customer owes it by the ledger, which the audit names
    with database.connection() as connection:
        assert credit_notes.list_of_invoice(connection, top_up.id, account_id) == []
        assert balance(connection, account_id, "receivable") == 20


def test_a_refund_that_fails_later_becomes_a_credit(database):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "10")
    pay(database, account_id, invoice)
    credit(database, account_id, invoice, "4")
    with database.transaction() as connection:
        [refund] = refunds.list_of_payment(connection, payment_of(database, invoice).id, account_id)
        refunds.settle(connection, refund, RefundOutcome("failed", "re_1"))

    check_books(database, account_id)
    with database.connection() as connection:
        assert credits.balance(connection, ensure(connection, account_id)) == 4


BOOKS = (
    *money.ledger.CHECKS,
    *money.invoices.CHECKS,
    *money.credits.CHECKS,
    money.payments.POSTED,
    money.payments.REFUNDED,
    money.payments.LEFT,
    money.usage.UNBILLED,
)


def test_the_audit_of_all_books_finds_nothing(empty_database):
    # Given invoices in every state, with credits, payments, refunds and credit notes
    database = empty_database
    account_id = new_customer(database, tax_rate="19")
    give(database, account_id, "4.99")
    job, _ = use(database, account_id, ["1.0049", "2.22"])
    usage = invoice_usage(database, account_id)
    pay(database, account_id, issue(database, account_id, "20", "top_up"))
    void, paid, negative = (issue(database, account_id, amount) for amount in ("7.77", "50", "-12"))
    pay(database, account_id, paid)
    credit(database, account_id, usage, job_id=job)
    credit(database, account_id, paid, "10")
    refund_at_the_gateway(database, payment_of(database, paid), "5")
    still_open, lost = issue(database, account_id, "80"), issue(database, account_id, "30")
    use(database, account_id, ["0.0001"])
    with database.transaction() as connection:
        invoice_states.write_off(connection, lost.id, account_id)
        invoice_states.void(connection, void.id, account_id)

    # When
    check_books(database, account_id)
    with database.transaction() as connection:
        found = list(money.differences(connection, BOOKS))

    # Then
    assert found == []
    states = [read_invoice(database, invoice).state for invoice in (void, paid, negative, still_open, lost)]
    assert states == ["void", "paid", "paid", "open", "uncollectible"]

"""Invoices that are issued at once."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from models.billing import credits, invoice_lines, invoice_states, invoices
from models.billing.billing_details import ensure
from models.billing.invoice_lines import NewLine
from models.platform.errors import Conflict, NotFound
from pipelines.billing import invoicing
from tests.pipelines.billing.books import balance, check_books, credit, give, new_customer, pay


def fee(amount, kind="fee"):
    return NewLine(kind, "The plan", Decimal(amount))


def issue(database, account_id, *amounts, reason="subscription"):
    with database.transaction() as connection:
        return invoicing.issue(connection, account_id, reason=reason, lines=[fee(amount) for amount in amounts])


def issue_and_fail(database, account_id):
    with database.transaction() as connection:
        invoicing.issue(connection, account_id, reason="change", lines=[fee("1")])
        raise RuntimeError


def test_an_invoice_has_rounded_lines_and_tax_on_their_sum(database):
    # Given a customer with a tax of 19 %
    account_id = new_customer(database, tax_rate="19")

    # When an invoice has two lines of 1.005
    invoice = issue(database, account_id, "1.005", "1.005")

    # Then each is rounded once, and the tax is rounded once
    assert (invoice.subtotal, invoice.tax, invoice.total) == (Decimal("2.02"), Decimal("0.38"), Decimal("2.40"))
    assert (invoice.state, invoice.amount_due) == ("open", Decimal("2.40"))
    assert invoice.number is not None
    check_books(database, account_id)


def test_numbers_have_no_gaps_although_transactions_are_rolled_back(database):
    # Given customers whose invoices are issued at the same time, some of which fail afterwards
    customers = [new_customer(database) for _ in range(4)]
    before = int(issue(database, customers[0], "1").number.rpartition("-")[2])

    def work(number):
        account_id = customers[number % 4]
        if number % 3:
            return [int(issue(database, account_id, "1").number.rpartition("-")[2])]
        with pytest.raises(RuntimeError):
            issue_and_fail(database, account_id)
        return []

    # When
    with ThreadPoolExecutor(6) as threads:
        numbers = [number for numbers in threads.map(work, range(24)) for number in numbers]

    # Then
    assert sorted(numbers) == list(range(before + 1, before + 1 + len(numbers)))


def test_the_invoice_of_another_account_is_not_found(database):
    account_id = new_customer(database)

    with pytest.raises(NotFound), database.transaction() as connection:
        invoices.read(connection, issue(database, account_id, "1").id, new_customer(database))


def test_credits_pay_by_priority_expiry_and_age(database):
    # Given
    account_id = new_customer(database)
    late = give(database, account_id, "5", priority=90)
    with database.connection() as connection:
        soon = connection.execute("SELECT now() + interval '1 day' AS time").fetchone()["time"]
    old, expiring = give(database, account_id, "5"), give(database, account_id, "5", expires_at=soon)

    # When
    invoice = issue(database, account_id, "7")

    # Then
    assert (invoice.state, invoice.paid) == ("paid", 7)
    with database.connection() as connection:
        drawn = {grant.id: grant.drawn for grant in credits.list_grants(connection, account_id)}
    assert drawn == {expiring.id: 5, old.id: 2, late.id: 0}
    check_books(database, account_id)


def test_an_expired_credit_pays_nothing(database):
    account_id = new_customer(database)
    give(database, account_id, "5")
    with database.connection() as connection:
        connection.execute("UPDATE credit_grants SET expires_at = now() WHERE account_id = %s", (account_id,))

    assert issue(database, account_id, "7").amount_due == 7


def test_credits_are_not_drawn_twice_by_concurrent_invoices(database):
    # Given a credit of 10 in two grants
    account_id = new_customer(database)
    give(database, account_id, "6")
    give(database, account_id, "4")

    # When six invoices of 3 are issued at once
    with ThreadPoolExecutor(6) as threads:
        issued = list(threads.map(lambda _: issue(database, account_id, "3"), range(6)))

    # Then
    assert sum(invoice.paid for invoice in issued) == 10
    check_books(database, account_id)


def test_a_negative_invoice_becomes_a_credit(database):
    # Given a customer who changes to a cheaper plan
    account_id = new_customer(database, tax_rate="20")

    # When
    invoice = issue(database, account_id, "-30", "10", reason="change")

    # Then the customer has the difference, with its tax, for later invoices
    assert (invoice.total, invoice.state, invoice.amount_due) == (-24, "paid", 0)
    check_books(database, account_id)
    assert issue(database, account_id, "30").amount_due == 12
    check_books(database, account_id)


def test_a_part_of_a_payment_leaves_the_rest_due(database):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "10")

    part = pay(database, account_id, invoice, "4")
    rest = pay(database, account_id, part)

    assert (part.state, part.amount_due) == ("open", 6)
    assert (rest.state, rest.amount_due) == ("paid", 0)
    check_books(database, account_id)


def test_an_overpayment_becomes_a_credit(database):
    # Given an invoice that is paid twice
    account_id = new_customer(database)
    invoice = issue(database, account_id, "10")
    pay(database, account_id, invoice)

    # When
    pay(database, account_id, invoice, "10.01")

    # Then
    check_books(database, account_id)
    assert issue(database, account_id, "11").amount_due == Decimal("0.99")


def test_a_paid_top_up_becomes_a_credit_once(database):
    # Given
    account_id = new_customer(database, tax_rate="19")
    give(database, account_id, "5")
    with database.transaction() as connection:
        invoice = invoicing.issue(connection, account_id, reason="top_up", lines=[fee("20", "top_up")])
    check_books(database, account_id)

    # When
    assert (invoice.amount_due, invoice.tax) == (20, 0)
    pay(database, account_id, invoice)

    # Then it has no tax yet: what it pays for has
    with database.connection() as connection:
        assert credits.balance(connection, ensure(connection, account_id)) == 25
    check_books(database, account_id)
    pay(database, account_id, invoice, "1")
    check_books(database, account_id)


def test_a_void_invoice_leaves_nothing_in_the_books(database):
    # Given an invoice that is partly paid from credits
    account_id = new_customer(database, tax_rate="19")
    give(database, account_id, "5")
    invoice = issue(database, account_id, "10")

    # When
    with database.transaction() as connection:
        voided = invoice_states.void(connection, invoice.id, account_id)
        invoice_states.void(connection, invoice.id, account_id)

    # Then
    assert (voided.state, voided.amount_due, voided.number) == ("void", 0, invoice.number)
    with database.connection() as connection:
        assert balance(connection, account_id, "receivable") == 0
        assert balance(connection, account_id, "tax") == 0
        assert credits.balance(connection, ensure(connection, account_id)) == 5
    check_books(database, account_id)


def test_credits_that_have_expired_meanwhile_do_not_come_back(database):
    # Given an invoice that a credit has paid, which expires then
    account_id = new_customer(database)
    grant = give(database, account_id, "5")
    invoice = issue(database, account_id, "5")
    with database.connection() as connection:
        connection.execute("UPDATE credit_grants SET expired_at = now() WHERE id = %s", (grant.id,))

    # When
    with database.transaction() as connection:
        invoice_states.void(connection, invoice.id, account_id)

    # Then
    check_books(database, account_id)
    assert issue(database, account_id, "5").amount_due == 5


def test_a_payment_of_a_void_invoice_becomes_a_credit(database):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "5")
    with database.transaction() as connection:
        invoice_states.void(connection, invoice.id, account_id)

    assert pay(database, account_id, invoice).state == "void"

    check_books(database, account_id)
    assert issue(database, account_id, "6").amount_due == 1


@pytest.mark.parametrize("state", ["received", "pending"])
def test_an_invoice_is_not_voided_after_a_payment(database, state):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "5")
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO payments (id, account_id, invoice_id, gateway, currency, amount, state)"
            " VALUES (%s, %s, %s, 'test', 'EUR', 5, %s)",
            (f"pay_{invoice.id}", account_id, invoice.id, "succeeded" if state == "received" else state),
        )

    with pytest.raises(Conflict), database.transaction() as connection:
        invoice_states.void(connection, invoice.id, account_id)


def test_a_written_off_invoice_can_still_be_paid(database):
    # Given
    account_id = new_customer(database)
    invoice = issue(database, account_id, "5")
    for amount, state in (("2", "open"), ("3", "paid")):
        with database.transaction() as connection:
            invoice_states.write_off(connection, invoice.id, account_id)
            invoice_states.write_off(connection, invoice.id, account_id)
        check_books(database, account_id)

        # When
        assert pay(database, account_id, invoice, amount).state == state

        # Then
        check_books(database, account_id)
    with database.connection() as connection:
        assert balance(connection, account_id, "bad_debt") == 0


def test_a_written_off_invoice_can_be_voided(database):
    account_id = new_customer(database)
    invoice = issue(database, account_id, "5")

    with database.transaction() as connection:
        invoice_states.write_off(connection, invoice.id, account_id)
        invoice_states.void(connection, invoice.id, account_id)

    with database.connection() as connection:
        assert balance(connection, account_id, "bad_debt") == 0
    check_books(database, account_id)


def test_the_parties_stay_as_they_were(database):
    account_id = new_customer(database, tax_rate="7")
    invoice = issue(database, account_id, "5")

    with database.transaction() as connection:
        connection.execute("UPDATE billing_details SET tax_rate = 0, name = 'New' WHERE account_id = %s", (account_id,))
        stored = invoices.read(connection, invoice.id, account_id)

    assert stored.parties["tax"] == {"name": "VAT", "rate": "7", "note": ""}
    assert stored.parties["customer"]["name"] == "a customer"
    with database.connection() as connection:
        assert [line.amount for line in invoice_lines.read_lines(connection, invoice.id, account_id)] == [5]


def test_a_payment_that_arrives_after_the_erasure_of_its_account_is_applied(database):
    # Given an account whose details were erased while a payment was under way
    account_id = new_customer(database)
    invoice = issue(database, account_id, "5")
    with database.connection() as connection:
        connection.execute("DELETE FROM billing_details WHERE account_id = %s", (account_id,))

    # When it is paid with too much, and credited
    assert pay(database, account_id, invoice, "6").state == "paid"
    credit(database, account_id, invoice)

    # Then
    with database.connection() as connection:
        assert balance(connection, account_id, "receivable") == 0
        assert balance(connection, account_id, "gateway") == 1
        assert balance(connection, account_id, "credits") == -1

"""Invoices are sent by e-mail."""

from decimal import Decimal

import pytest

from models.accounts import accounts, members
from models.billing import billing_details, invoice_states
from models.billing.invoice_lines import NewLine
from models.jobs.jobs import enqueue
from models.platform.ids import new_id
from pipelines.accounts.email_jobs import EmailTemplate, email_job
from pipelines.billing import invoicing
from pipelines.billing.collection import collect
from tests.pipelines.billing.books import credit


@pytest.fixture
def owner(database):
    """The owner of an account that is billed in EUR: (account id, address)."""
    address = f"{new_id('owner')}@example.com"
    with database.transaction() as connection:
        member = accounts.create(connection, email=address, password_hash=None)
        billing_details.ensure(connection, member.account_id, "EUR")
    return member.account_id, address


def issue(database, account_id, amount="5"):
    with database.transaction() as connection:
        line = NewLine("fee", "The plan", Decimal(amount))
        return invoicing.issue(connection, account_id, reason="subscription", lines=[line])


def test_an_owner_gets_the_invoice_as_pdf(database, owner, mailbox):
    # Given
    account_id, address = owner
    invoice = issue(database, account_id)

    # When
    [email] = mailbox.deliver(address)

    # Then
    assert email["Subject"] == f"Invoice {invoice.number}"
    assert "5.00 EUR is due by" in email.get_body().get_content()
    [attachment] = email.iter_attachments()
    assert attachment.get_filename() == f"invoice-{invoice.number}.pdf"
    assert attachment.get_content().startswith(b"%PDF")


def test_a_billing_address_replaces_the_owners(database, owner, mailbox):
    account_id, address = owner
    billing = f"{new_id('pay')}@example.com"
    with database.transaction() as connection:
        billing_details.update(connection, account_id, email=billing)
    issue(database, account_id)

    assert mailbox.deliver(address) == []
    assert len(mailbox.deliver(billing)) == 1


def test_an_invoice_of_nothing_is_not_sent(database, owner, mailbox):
    account_id, address = owner
    issue(database, account_id, "0")

    assert mailbox.deliver(address) == []


def test_a_void_invoice_is_not_sent(database, owner, mailbox):
    account_id, address = owner
    invoice = issue(database, account_id)
    with database.transaction() as connection:
        invoice_states.void(connection, invoice.id, account_id)

    assert mailbox.deliver(address) == []


@pytest.mark.parametrize(("gateway", "subject"), [("manual", "is overdue"), ("test", "failed")])
def test_a_missing_transfer_is_called_overdue_and_a_declined_payment_failed(database, owner, mailbox, gateway, subject):
    # Given an open invoice that was to be paid by a gateway
    account_id, address = owner
    invoice = issue(database, account_id)
    mailbox.deliver(address)

    # When the account's admins are informed
    with database.transaction() as connection:
        collect(gateway, connection, invoice)
        [user_id] = members.list_owner_ids(connection, account_id)
        ids = {"user_id": user_id, "invoice_id": invoice.id}
        enqueue(connection, email_job(EmailTemplate.PAYMENT_FAILED, account_id=account_id, **ids))

    # Then
    [email] = mailbox.deliver(address)
    assert (invoice.number in email["Subject"], subject in email["Subject"]) == (True, True)


def test_an_owner_gets_the_credit_note_of_an_invoice_as_pdf(database, owner, mailbox):
    # Given
    account_id, address = owner
    invoice = issue(database, account_id)
    mailbox.deliver(address)

    # When
    note = credit(database, account_id, invoice, "2")

    # Then
    [email] = mailbox.deliver(address)
    assert email["Subject"] == f"Credit note {note.number}"
    assert f"2.00 EUR, with tax, of invoice {invoice.number}" in email.get_body().get_content()
    [attachment] = email.iter_attachments()
    assert attachment.get_filename() == f"credit-note-{note.number}.pdf"
    assert attachment.get_content().startswith(b"%PDF")

"""What operators do with the money of an account. Each action is in the account's audit log."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.billing import billing_details, invoice_states, invoices, numbering, payments, refunds
from models.billing.billing_details import BillingDetails
from models.billing.credit_notes import CreditNote
from models.billing.credits import Grant
from models.billing.currencies import format_amount
from models.billing.invoices import Invoice
from models.billing.numbering import Seller
from models.jobs.jobs import enqueue
from models.platform.database import Connection, Database
from pipelines.accounts.operator_actions import find_account
from pipelines.billing import credit_note, grants
from pipelines.billing.credit_note import NewCreditNote


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator, and where the request came from."""

    database: Database
    caller: Caller
    origin: RequestOrigin

    def record(
        self, connection: Connection, action: str, account_id: str, target: str, details: Mapping[str, Any]
    ) -> None:
        """Write an event to the audit log of the account."""
        by = {"operator_id": self.caller.user_id}
        audit.record(
            connection, action, self.origin, account_id=account_id, user_id=self.caller.user_id, target=target,
            details={**details, **by},
        )  # fmt: skip


def change_seller(operator: Operator, changes: Mapping[str, Any]) -> Seller:
    """Change the seller, for later invoices."""
    with operator.database.transaction() as connection:
        seller = numbering.update_seller(connection, changes)
        fields = {"fields": sorted(name for name, value in changes.items() if value is not None)}
        operator.record(connection, "seller.changed", operator.caller.account_id, seller.id, fields)
    return seller


def set_tax(operator: Operator, account_id: str, *, name: str, rate: Decimal, note: str) -> BillingDetails:
    """Set the tax of an account's later invoices. Raises NotFound."""
    with operator.database.transaction() as connection:
        find_account(connection, account_id)
        billing_details.ensure(connection, account_id)
        details = billing_details.set_tax(connection, account_id, name=name, rate=rate, note=note)
        operator.record(connection, "tax.changed", account_id, account_id, {"name": name, "rate": str(rate)})
    return details


def give_credits(operator: Operator, account_id: str, grant_id: str, amount: Decimal, **options: Any) -> Grant:
    """Give an account credits, once for an id. Raises NotFound, and InvalidRequest for an odd amount."""
    with operator.database.transaction() as connection:
        find_account(connection, account_id)
        grant = grants.give(connection, account_id, amount, grant_id=grant_id, **options)
        given = {"amount": format_amount(grant.amount, grant.currency), "currency": grant.currency}
        operator.record(connection, "credits.given", account_id, grant.id, given)
    return grant


def void(operator: Operator, invoice_id: str) -> Invoice:
    """Void an invoice. Raises NotFound and Conflict."""
    with operator.database.transaction() as connection:
        account_id = invoices.read_any(connection, invoice_id).account_id
        invoice = invoice_states.void(connection, invoice_id, account_id)
        operator.record(connection, "invoice.voided", account_id, invoice_id, {"number": invoice.number})
    return invoice


def write_off(operator: Operator, invoice_id: str) -> Invoice:
    """Write an invoice off. Raises NotFound and Conflict."""
    with operator.database.transaction() as connection:
        account_id = invoices.read_any(connection, invoice_id).account_id
        invoice = invoice_states.write_off(connection, invoice_id, account_id)
        operator.record(connection, "invoice.written_off", account_id, invoice_id, {"number": invoice.number})
    return invoice


def issue_credit_note(operator: Operator, invoice_id: str, new: NewCreditNote) -> CreditNote:
    """Issue a credit note, and request the refunds of what was paid. Nudge the queue after it.

    Raises NotFound, Conflict and InvalidRequest.
    """
    with operator.database.transaction() as connection:
        account_id = invoices.read_any(connection, invoice_id).account_id

        def refund(payment_id: str, amount: Decimal, note_id: str) -> None:
            payment = payments.read(connection, payment_id, account_id)
            _, job = refunds.new_refund(connection, payment, amount=amount, reason=new.reason, credit_note_id=note_id)
            enqueue(connection, job)

        note = credit_note.issue(connection, invoice_id, account_id, new, refund)
        credited = {"invoice_id": invoice_id, "amount": format_amount(note.amount, note.currency)}
        operator.record(connection, "credit_note.issued", account_id, note.id, credited)
    return note

"""What a paid or failed payment means for the subscription of its invoice.

A failed payment is tried again on the seller's `retry_days` after it. The subscription is past due meanwhile, with its
limits, and unpaid after the last one, without them. It is active again once none of its invoices has a failed payment.

A bank transfer that has not arrived when its invoice is due counts as failed, and then on each of these days: the
customer is reminded then.
"""

from collections.abc import Sequence
from datetime import timedelta

from models.billing import billing_details, numbering, subscriptions
from models.billing.invoices import Invoice
from models.billing.subscriptions import Subscription
from models.jobs.jobs import NewJob
from models.platform.database import Connection, fetch_one
from models.schedules.schedules import database_time


def invoice_paid(connection: Connection, invoice: Invoice) -> list[NewJob]:
    """Activate the subscription of an invoice that was paid, with the limits of its plan."""
    if invoice.subscription_id is None or invoice.state != "paid":
        return []
    billing_details.lock_if_any(connection, invoice.account_id)  # None once the account is erased
    subscription = subscriptions.lock(connection, invoice.subscription_id, invoice.account_id)
    if subscription is not None:
        activate(connection, subscription)
    return []


FAILING = """
SELECT EXISTS (SELECT FROM invoices
               WHERE account_id = %(account_id)s AND subscription_id = %(id)s AND state = 'open'
                 AND EXISTS (SELECT FROM payments
                             WHERE invoice_id = invoices.id
                               AND (payments.state = 'failed'
                                    OR payments.state = 'pending' AND gateway = 'manual' AND due_at <= now())))
       AS found
"""


def activate(connection: Connection, subscription: Subscription) -> Subscription:
    """Activate a locked subscription, unless an invoice of it has a failed payment, or it has ended."""
    row = fetch_one(connection, FAILING, {"account_id": subscription.account_id, "id": subscription.id})
    if (row and row["found"]) or subscription.state in ("ended", "trialing"):
        return subscription
    changed = subscriptions.set_state(connection, subscription, "active", ("incomplete", "past_due", "unpaid"))
    active = changed or subscription
    subscriptions.apply_limits(connection, active)
    return active


def payment_failed(connection: Connection, invoice: Invoice) -> list[NewJob]:
    """Plan another payment of an open invoice. After the last one its subscription is unpaid.

    A top-up and the first invoice of a subscription are not tried again: the customer is there.
    """
    if invoice.state != "open" or invoice.reason == "top_up":
        return []
    if billing_details.lock_if_any(connection, invoice.account_id) is None:  # the account was erased
        return []
    subscription = _lock_subscription(connection, invoice)
    if subscription is not None and subscription.state == "incomplete":
        return []
    days = numbering.read_seller(connection).retry_days
    if invoice.tries < len(days):
        if subscription is not None:
            subscriptions.set_state(connection, subscription, "past_due", ("active",))
        return [_next_try(connection, invoice, days), _notice(invoice, "payment_failed")]
    return _give_up(connection, invoice, subscription)


def check_when_due(invoice: Invoice) -> list[NewJob]:
    """Return the job that looks when the invoice is due whether the bank transfer has arrived. An invoice has one."""
    if invoice.state != "open" or invoice.due_at is None:
        return []
    arguments = {"invoice_id": invoice.id, "number": 0}
    unique_key = f"invoice.collect {invoice.id} 0"
    return [NewJob("invoice.collect", invoice.account_id, arguments, run_at=invoice.due_at, unique_key=unique_key)]


def transfer_missing(connection: Connection, invoice: Invoice) -> list[NewJob]:
    """Remind the account's admins of a locked invoice that is due and was to be paid by bank transfer.

    Of the first invoice of a subscription once: the subscription waits for it until its period ends.
    """
    subscription = _lock_subscription(connection, invoice)
    if subscription is not None and subscription.state == "incomplete":
        return [_notice(invoice, "payment_failed")]
    return payment_failed(connection, invoice)


def _give_up(connection: Connection, invoice: Invoice, subscription: Subscription | None) -> list[NewJob]:
    if subscription is None:
        return []
    unpaid = subscriptions.set_state(connection, subscription, "unpaid", ("active", "past_due"))
    if unpaid is None:
        return []
    subscriptions.apply_limits(connection, unpaid)
    return [_notice(invoice, "subscription_unpaid")]


def _lock_subscription(connection: Connection, invoice: Invoice) -> Subscription | None:
    if invoice.subscription_id is None:
        return None
    return subscriptions.lock(connection, invoice.subscription_id, invoice.account_id)


def _next_try(connection: Connection, invoice: Invoice, days: Sequence[int]) -> NewJob:
    """Return the job of the next payment. The days count from the first failure; each number has one job."""
    number = invoice.tries + 1
    delay = days[number - 1] - (days[number - 2] if number > 1 else 0)
    return NewJob(
        "invoice.collect",
        invoice.account_id,
        {"invoice_id": invoice.id, "number": number},
        run_at=database_time(connection) + timedelta(days=delay),
        unique_key=f"invoice.collect {invoice.id} {number}",
    )


def _notice(invoice: Invoice, event: str) -> NewJob:
    """Return the job that informs the account's admins, once for each try."""
    return NewJob(
        "subscription.notify",
        invoice.account_id,
        {"invoice_id": invoice.id, "event": event},
        unique_key=f"subscription.notify {invoice.id} {event} {invoice.tries}",
    )

"""Subscribe an account to a plan.

A plan with a fee begins as `incomplete` with an invoice and its payment, and is active once that is paid. One without a
fee, and one with a trial, begins at once.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from models.accounts import admin
from models.accounts.accounts import UNVERIFIED_PLAN
from models.billing import (
    billing_details,
    dunning,
    invoice_states,
    invoices,
    payments,
    periods,
    plan_versions,
    subscriptions,
)
from models.billing.invoice_lines import NewLine
from models.billing.invoices import Invoice
from models.billing.payments import GatewayName, Payment
from models.billing.plan_versions import PlanVersion
from models.billing.subscriptions import Subscription
from models.platform.database import Connection
from models.platform.errors import Conflict, NotAllowed, NotFound
from models.schedules.schedules import database_time
from pipelines.billing import invoicing
from pipelines.billing.invoicing import Period


@dataclass(frozen=True, slots=True)
class NewSubscription:
    """What a customer asks for.

    id                 of the subscription: a repetition of the request has the same
    payment_method_id  None: the default one of the account
    owner_id           the user who may follow the payment's job
    """

    id: str
    account_id: str
    plan_id: str
    payment_method_id: str | None = None
    owner_id: str | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A subscription with the invoice and the payment that a request has led to, if it has."""

    subscription: Subscription
    invoice: Invoice | None = None
    payment: Payment | None = None


def subscribe(connection: Connection, gateway: GatewayName, new: NewSubscription) -> Confirmation:
    """Subscribe to the newest version of a plan. Announce the payment's job after the commit.

    Raises NotFound for a plan that customers may not have, Conflict if the account has a subscription, InvalidRequest
    for a plan of another currency than the account's, and NotAllowed for one without a payment if the user's address is
    unverified.
    """
    earlier = subscriptions.read(connection, new.id, new.account_id)
    if earlier is not None:
        return confirmation(connection, earlier)
    version = plan_versions.newest_public(connection, new.plan_id)
    billing_details.ensure(connection, new.account_id, version.currency)
    billing_details.lock(connection, new.account_id)
    _require_open(connection, new.account_id)
    _make_room(connection, new.account_id)
    return _start(connection, gateway, new, version)


def _require_open(connection: Connection, account_id: str) -> None:
    """Raise NotFound for an account that was closed meanwhile: nothing would end its subscription."""
    account = admin.read_account(connection, account_id)
    if account is None or account.erased_at is not None:
        raise NotFound("There is no such account.")


def _make_room(connection: Connection, account_id: str) -> None:
    """End a subscription that was never paid. Raises Conflict for another one."""
    present = subscriptions.current(connection, account_id)
    if present is None:
        return
    if present.state != "incomplete":
        message = f"The account is subscribed to the plan '{present.plan_id}'. Change or cancel that subscription."
        raise Conflict(message, code="subscription_exists")
    for invoice in open_invoices(connection, present):
        invoice_states.void(connection, invoice.id, account_id)
    subscriptions.end(connection, present, "replaced")


def _start(connection: Connection, gateway: GatewayName, new: NewSubscription, version: PlanVersion) -> Confirmation:
    now = database_time(connection)
    has_trial = version.trial_days and not subscriptions.had_trial(connection, new.account_id)
    if has_trial or version.fee == 0:
        _require_verified(connection, new.account_id)
    if has_trial:
        trial = (now, now + timedelta(days=version.trial_days))
        return _begin(connection, subscriptions.insert(connection, new.id, new.account_id, version, "trialing", trial))
    period = periods.bounds(now, version.period, 0)
    if version.fee == 0:
        return _begin(connection, subscriptions.insert(connection, new.id, new.account_id, version, "active", period))
    subscription = subscriptions.insert(connection, new.id, new.account_id, version, "incomplete", period)
    return _charge(connection, gateway, new, subscription, version)


def _require_verified(connection: Connection, account_id: str) -> None:
    """Raise NotAllowed for an account of unverified users: what costs nothing would free them from its limits."""
    account = admin.read_account(connection, account_id)
    if account is not None and account.plan_id == UNVERIFIED_PLAN:
        raise NotAllowed("Confirm your e-mail address before you subscribe without a payment.", code="email_unverified")


def _begin(connection: Connection, subscription: Subscription) -> Confirmation:
    subscriptions.apply_limits(connection, subscription)
    return Confirmation(subscription)


def _charge(
    connection: Connection,
    gateway: GatewayName,
    new: NewSubscription,
    subscription: Subscription,
    version: PlanVersion,
) -> Confirmation:
    """Issue the first invoice and request its payment."""
    period = (subscription.period_start, subscription.period_end)
    lines = [fee_line(version, period)]
    invoice = invoicing.issue(
        connection, new.account_id, reason="subscription", lines=lines, subscription_id=new.id, period=period
    )
    if invoice.amount_due == 0:  # it was paid from credits
        return Confirmation(dunning.activate(connection, subscription), invoice)
    payment = request_payment(
        connection, gateway, invoice, payment_method_id=new.payment_method_id, owner_id=new.owner_id
    )
    return Confirmation(subscription, invoice, payment)


def request_payment(
    connection: Connection,
    gateway: GatewayName,
    invoice: Invoice,
    *,
    payment_method_id: str | None = None,
    owner_id: str | None = None,
) -> Payment:
    """Request the payment of what is due of an invoice."""
    return payments.request_payment(
        connection,
        invoice.account_id,
        invoice_id=invoice.id,
        amount=invoice.amount_due,
        currency=invoice.currency,
        gateway=gateway,
        payment_method_id=payment_method_id,
        owner_id=owner_id,
    )


def pay(
    connection: Connection,
    gateway: GatewayName,
    invoice_id: str,
    account_id: str,
    *,
    payment_method_id: str | None = None,
    owner_id: str | None = None,
) -> tuple[Invoice, Payment]:
    """Request the payment of an open invoice. Announce its job after the commit.

    Raises NotFound, and Conflict if nothing is due or a payment is under way.
    """
    billing_details.lock(connection, account_id)
    invoice = invoices.lock(connection, invoice_id, account_id)
    if invoice.amount_due == 0:
        raise Conflict(f"The invoice is {invoice.state}. Nothing is due.", code="invoice_state")
    newest = payments.list_payments(connection, account_id, invoice_id=invoice_id, limit=1)
    if newest and newest[0].state in ("pending", "requires_action"):
        raise Conflict(f"The payment '{newest[0].id}' of the invoice is in progress.", code="payment_pending")
    payment = request_payment(connection, gateway, invoice, payment_method_id=payment_method_id, owner_id=owner_id)
    return invoice, payment


def fee_line(version: PlanVersion, period: Period) -> NewLine:
    """Return the line of a period's fee."""
    start, end = period
    details = {
        "plan": version.plan_id, "version": version.version, "from": int(start.timestamp()), "to": int(end.timestamp())
    }  # fmt: skip
    return NewLine("fee", f"{version.name}, {start:%Y-%m-%d} to {end:%Y-%m-%d}", version.fee, details=details)


def confirmation(connection: Connection, subscription: Subscription) -> Confirmation:
    """Return a subscription as it is now, with its newest invoice and payment."""
    invoice = next(iter(invoices.of_subscription(connection, subscription.id, subscription.account_id)), None)
    if invoice is None:
        return Confirmation(subscription)
    found = payments.list_payments(connection, subscription.account_id, invoice_id=invoice.id, limit=1)
    return Confirmation(subscription, invoice, found[0] if found else None)


def open_invoices(connection: Connection, subscription: Subscription) -> list[Invoice]:
    """Return the invoices of a subscription that are not paid, or collect usage."""
    found = invoices.of_subscription(connection, subscription.id, subscription.account_id)
    return [invoice for invoice in found if invoice.state in ("draft", "open")]


def end_never_paid(connection: Connection, subscription: Subscription) -> None:
    """End a locked subscription whose first invoice was not paid. What a late payment brings becomes a credit."""
    for invoice in open_invoices(connection, subscription):
        with suppress(Conflict):  # a payment of it is under way
            invoice_states.void(connection, invoice.id, subscription.account_id)
    subscriptions.end(connection, subscription, "never_paid")

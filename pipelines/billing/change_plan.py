"""Change, cancel and resume the subscription of an account.

A change takes effect now, with a credit for the rest of the old plan and a charge for the rest of the new one, or from
the next period on. The limits of a plan for which something is due apply once it is paid.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from models.billing import billing_details, periods, plan_versions, subscriptions
from models.billing.invoice_lines import NewLine
from models.billing.payments import GatewayName
from models.billing.plan_versions import PlanVersion
from models.billing.subscriptions import EndReason, Subscription
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Connection
from models.platform.errors import Conflict
from models.schedules.schedules import database_time
from pipelines.billing import invoicing
from pipelines.billing.proration import change_lines, credit_lines, used_part
from pipelines.billing.subscribe import (
    Confirmation,
    end_never_paid,
    fee_line,
    open_invoices,
    request_payment,
)

When = Literal["now", "period_end"]


def change(
    connection: Connection,
    gateway: GatewayName,
    account_id: str,
    plan_id: str,
    when: When,
    *,
    owner_id: str | None = None,
) -> Confirmation:
    """Change to the newest version of a plan. Announce the payment's job after the commit.

    The present plan takes back a change that was planned for the period's end. Raises NotFound without a subscription
    or such a plan, and Conflict if the subscription's state or an open invoice does not allow it.
    """
    subscription = _lock(connection, account_id)
    version = plan_versions.newest_public(connection, plan_id)
    _check(subscription, version, subscriptions.version_of(connection, subscription))
    if (version.plan_id, version.version) == (subscription.plan_id, subscription.plan_version):
        return Confirmation(subscriptions.set_next(connection, subscription, None))
    if when == "period_end":
        return Confirmation(subscriptions.set_next(connection, subscription, version))
    return _change_now(connection, gateway, subscription, version, owner_id)


def cancel(connection: Connection, account_id: str, when: When) -> Subscription:
    """End the subscription with its period, or now. What was paid is not given back. Raises NotFound."""
    subscription = _lock(connection, account_id)
    if subscription.state == "incomplete":
        end_never_paid(connection, subscription)
        return subscriptions.read(connection, subscription.id, account_id) or subscription
    if when == "period_end":
        return subscriptions.set_cancel(connection, subscription, cancel=True)
    return close(connection, subscription, "cancelled", database_time(connection))


def resume(connection: Connection, account_id: str) -> Subscription:
    """Take back that the subscription ends with its period. Raises NotFound."""
    return subscriptions.set_cancel(connection, _lock(connection, account_id), cancel=False)


def close(connection: Connection, subscription: Subscription, reason: EndReason, at: datetime) -> Subscription:
    """End a locked subscription at a time, and start the invoice of its usage."""
    terms = included_terms(connection, subscription, at)
    ended = subscriptions.end(connection, subscription, reason)
    invoice_usage(connection, subscription, at, terms)
    return ended


def included_terms(connection: Connection, subscription: Subscription, until: datetime) -> dict[str, Any]:
    """Return the usage that is included in the part of the period until a time, and the price of what exceeds it."""
    version = subscriptions.version_of(connection, subscription)
    start, end = subscription.period_start, subscription.period_end
    part = used_part(version.included_amount, start, end, subscription.version_since, until)
    return {"amount": str(subscription.included_before + part), "overage": version.overage}


def invoice_usage(
    connection: Connection, subscription: Subscription, until: datetime, terms: Mapping[str, Any]
) -> None:
    """Start the invoice of a subscription's usage before a time, if there is any."""
    if subscriptions.has_unbilled_usage(connection, subscription.account_id, until):
        start_draft(connection, subscription, "usage", until, terms, [])


def start_draft(
    connection: Connection,
    subscription: Subscription,
    reason: Literal["usage", "renewal"],
    until: datetime,
    terms: Mapping[str, Any],
    lines: list[NewLine],
) -> None:
    """Start the invoice of a period. Those of an account collect their usage one after the other."""
    _, job = invoicing.start_draft(
        connection,
        subscription.account_id,
        reason=reason,
        subscription_id=subscription.id,
        period_start=subscription.period_start,
        period_end=until,
        lines=lines,
        included=terms,
    )
    enqueue(connection, _in_order(job))


def _in_order(job: NewJob) -> NewJob:
    return replace(job, serial_key=f"invoice.draft {job.account_id}")


def _lock(connection: Connection, account_id: str) -> Subscription:
    if billing_details.read(connection, account_id) is not None:
        billing_details.lock(connection, account_id)
    return subscriptions.lock_current(connection, account_id)


def _check(subscription: Subscription, version: PlanVersion, present: PlanVersion) -> None:
    if subscription.state not in ("trialing", "active"):
        message = f"The subscription is {subscription.state}. Pay its open invoice first."
        raise Conflict(message, code="subscription_state")
    if version.currency != present.currency:
        message = f"The plan is in {version.currency}, the subscription in {present.currency}."
        raise Conflict(message, code="currency_mismatch")


def _change_now(
    connection: Connection,
    gateway: GatewayName,
    subscription: Subscription,
    version: PlanVersion,
    owner_id: str | None,
) -> Confirmation:
    """Move the subscription, and issue an invoice of the difference."""
    if open_invoices(connection, subscription):  # a credit for what is not paid would be money for nothing
        raise Conflict("The subscription has an open invoice. Pay it first.", code="invoice_open")
    now = database_time(connection)
    if subscription.state == "trialing":
        return _change_trial(connection, subscription, version, now)
    present = subscriptions.version_of(connection, subscription)
    moved, lines = _move(connection, subscription, present, version, now)
    if not lines:
        return _granted(connection, Confirmation(moved))
    invoice = invoicing.issue(
        connection,
        subscription.account_id,
        reason="change",
        lines=lines,
        subscription_id=subscription.id,
        period=(now, moved.period_end),
    )
    if invoice.amount_due == 0:
        return _granted(connection, Confirmation(moved, invoice))
    return Confirmation(moved, invoice, request_payment(connection, gateway, invoice, owner_id=owner_id))


def _granted(connection: Connection, change: Confirmation) -> Confirmation:
    subscriptions.apply_limits(connection, change.subscription)
    return change


def _move(
    connection: Connection, subscription: Subscription, present: PlanVersion, version: PlanVersion, now: datetime
) -> tuple[Subscription, list[NewLine]]:
    """Change the version, and return the lines. A plan with another period begins a new one, and ends that of usage."""
    start, end = subscription.period_start, subscription.period_end
    terms = included_terms(connection, subscription, now)
    if version.period == present.period:
        moved = subscriptions.set_version(connection, subscription, version, now, included=Decimal(terms["amount"]))
        return moved, change_lines(present, version, start, end, now)
    invoice_usage(connection, subscription, now, terms)
    moved = subscriptions.move(connection, subscription, version, now, 0)
    fee = [fee_line(version, periods.bounds(now, version.period, 0))] if version.fee else []
    return moved, [*credit_lines(present, start, end, now), *fee]


def _change_trial(
    connection: Connection, subscription: Subscription, version: PlanVersion, now: datetime
) -> Confirmation:
    """Change the plan of a trial, which goes on. Raises Conflict for a plan with a shorter one."""
    if version.trial_days < subscriptions.version_of(connection, subscription).trial_days:
        message = "The plan has no trial of that length. Change to it at the end of the period, or cancel first."
        raise Conflict(message, code="subscription_state")
    terms = included_terms(connection, subscription, now)
    changed = subscriptions.set_version(connection, subscription, version, now, included=Decimal(terms["amount"]))
    return _granted(connection, Confirmation(changed))

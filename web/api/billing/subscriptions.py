"""`/billing/subscribe` and `/billing/subscription`: the plan that an account pays for."""

import asyncio
from contextlib import suppress
from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import audit
from models.billing import subscriptions
from models.billing.currencies import format_amount
from models.billing.payments import Payment
from models.billing.subscriptions import Subscription, SubscriptionState
from models.platform.database import Connection
from models.platform.errors import NotFound
from pipelines.billing import change_plan, subscribe
from pipelines.billing.subscribe import Confirmation, NewSubscription
from pipelines.requests.validation import RequestBody
from web.api.billing.invoice_schemas import InvoiceObject, invoice_object
from web.api.billing.plans import PlanObject, plan_object
from web.api.job_results import last_event
from web.api.request import Request
from web.http import bodies
from web.http.preferences import applied_wait, preferred_wait
from web.http.responses import json_response
from web.http.threads import run_in_thread
from web.http.timestamps import to_unix

#: Seconds that a request waits for its payment at most.
MAX_WAIT = 60


class Subscribe(RequestBody):
    """The body of `POST /billing/subscribe`. Without `payment_method_id` the default method is charged."""

    plan: str = Field(min_length=1, max_length=64)
    payment_method_id: str | None = Field(None, min_length=1, max_length=64)


class ChangeSubscription(RequestBody):
    """The body of `PATCH /billing/subscription`.

    `when` is `now`, with the difference for the rest of the period, or `period_end`. The present plan takes back a
    change that is planned for the period's end.
    """

    plan: str = Field(min_length=1, max_length=64)
    when: Literal["now", "period_end"] = "now"


class CancelSubscription(RequestBody):
    """The body of `POST /billing/subscription/cancel`."""

    when: Literal["now", "period_end"] = "period_end"


class SubscriptionPlan(TypedDict):
    """A plan and its version."""

    id: str
    version: int


class SubscriptionObject(TypedDict):
    """A subscription. `next_plan` is the plan from the next period on, null if it stays."""

    id: str
    object: Literal["subscription"]
    state: SubscriptionState
    plan: PlanObject
    next_plan: SubscriptionPlan | None
    period_start: int
    period_end: int
    trial_end: int | None
    cancel_at_period_end: bool
    created_at: int
    ended_at: int | None
    end_reason: str | None


class PaymentSummary(TypedDict):
    """The payment that a request has led to. `action_url` is where the customer confirms it, if that is needed."""

    id: str
    object: Literal["payment"]
    state: str
    currency: str
    amount: str
    action_url: str | None
    error: dict[str, str] | None


class SubscriptionJob(TypedDict):
    """The job of the payment. Its events tell when the payment has ended."""

    id: str
    state_url: str


class SubscriptionConfirmation(TypedDict):
    """What a request has led to: the subscription, and its invoice, payment and job, if there are such."""

    object: Literal["billing.confirmation"]
    subscription: SubscriptionObject
    invoice: InvoiceObject | None
    payment: PaymentSummary | None
    job: SubscriptionJob | None
    events_url: str | None


async def create(request: Request) -> Response:
    """`POST /billing/subscribe`: subscribe to a plan, and wait for the payment as long as `Prefer: wait=N` says."""
    body = bodies.parse(request.body, Subscribe)
    new = NewSubscription(
        request.new_id("sub"),
        request.caller.account_id,
        body.plan,
        payment_method_id=body.payment_method_id,
        owner_id=request.caller.user_id,
    )
    confirmation = await run_in_thread(_subscribe, request, new)
    return await _respond(request, confirmation)


def _subscribe(request: Request, new: NewSubscription) -> Confirmation:
    platform = request.platform
    with platform.database.transaction() as connection:
        if (earlier := subscriptions.read(connection, new.id, new.account_id)) is not None:
            return subscribe.confirmation(connection, earlier)
        confirmation = subscribe.subscribe(connection, platform.settings.gateway, new)
        _record(connection, request, "subscription.created", confirmation.subscription)
    return confirmation


async def change(request: Request) -> Response:
    """`PATCH /billing/subscription`: change the plan, now or from the next period on."""
    body = bodies.parse(request.body, ChangeSubscription)
    return await _respond(request, await run_in_thread(_change, request, body))


def _change(request: Request, body: ChangeSubscription) -> Confirmation:
    platform, caller = request.platform, request.caller
    with platform.database.transaction() as connection:
        confirmation = change_plan.change(
            connection, platform.settings.gateway, caller.account_id, body.plan, body.when, owner_id=caller.user_id
        )
        _record(connection, request, "subscription.changed", confirmation.subscription)
    return confirmation


async def _respond(request: Request, confirmation: Confirmation) -> Response:
    """Announce the payment's job, wait for it if the client prefers that, and return what has become of it."""
    account_id, wait = request.caller.account_id, preferred_wait(request.headers, MAX_WAIT)
    payment = confirmation.payment
    if payment is not None and payment.job_id and payment.state == "pending":
        await run_in_thread(request.platform.queue.announce_job, payment.job_id, (), account_id)
        if wait:
            await wait_for_job(request, payment.job_id, wait)
            confirmation = await run_in_thread(_reread, request, confirmation)
    body = await run_in_thread(_confirmation_object, request, confirmation)
    return json_response(body, headers=applied_wait(wait))


async def wait_for_job(request: Request, job_id: str, seconds: int) -> None:
    """Wait for the end of a job, at most so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await last_event(request, job_id, seconds)


def _reread(request: Request, confirmation: Confirmation) -> Confirmation:
    with request.platform.database.connection() as connection:
        current = subscriptions.read(connection, confirmation.subscription.id, request.caller.account_id)
        return subscribe.confirmation(connection, current or confirmation.subscription)


def read(request: Request) -> Response:
    """`GET /billing/subscription`: read the account's subscription; the newest one, if it has ended."""
    with request.platform.database.connection() as connection:
        subscription = subscriptions.current(connection, request.caller.account_id) or subscriptions.latest(
            connection, request.caller.account_id
        )
        if subscription is None:
            raise NotFound("The account has no subscription.", code="no_subscription")
        return json_response(subscription_object(connection, subscription))


def cancel(request: Request) -> Response:
    """`POST /billing/subscription/cancel`: end the subscription with its period, or now."""
    body = bodies.parse(request.body or b"{}", CancelSubscription)
    with request.platform.database.transaction() as connection:
        subscription = change_plan.cancel(connection, request.caller.account_id, body.when)
        _record(connection, request, "subscription.cancelled", subscription)
        answer = subscription_object(connection, subscription)
    request.platform.queue.nudge(request.caller.account_id)
    return json_response(answer)


def resume(request: Request) -> Response:
    """`POST /billing/subscription/resume`: let the subscription continue after its period."""
    with request.platform.database.transaction() as connection:
        subscription = change_plan.resume(connection, request.caller.account_id)
        _record(connection, request, "subscription.resumed", subscription)
        return json_response(subscription_object(connection, subscription))


def _record(connection: Connection, request: Request, action: str, subscription: Subscription) -> None:
    audit.record(
        connection,
        action,
        request.origin,
        account_id=subscription.account_id,
        user_id=request.caller.user_id,
        target=subscription.id,
        details={"plan": subscription.plan_id, "next_plan": subscription.next_plan_id, "state": subscription.state},
    )


def subscription_object(connection: Connection, subscription: Subscription) -> SubscriptionObject:
    """Convert a subscription to its API object."""
    upcoming: SubscriptionPlan | None = None
    if subscription.next_plan_id is not None and subscription.next_plan_version is not None:
        upcoming = {"id": subscription.next_plan_id, "version": subscription.next_plan_version}
    return {
        "id": subscription.id,
        "object": "subscription",
        "state": subscription.state,
        "plan": plan_object(subscriptions.version_of(connection, subscription)),
        "next_plan": upcoming,
        "period_start": int(subscription.period_start.timestamp()),
        "period_end": int(subscription.period_end.timestamp()),
        "trial_end": to_unix(subscription.trial_end),
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "created_at": int(subscription.created_at.timestamp()),
        "ended_at": to_unix(subscription.ended_at),
        "end_reason": subscription.end_reason,
    }


def _confirmation_object(request: Request, confirmation: Confirmation) -> SubscriptionConfirmation:
    payment = confirmation.payment
    job_id = payment.job_id if payment else None
    with request.platform.database.connection() as connection:
        subscription = subscription_object(connection, confirmation.subscription)
    return {
        "object": "billing.confirmation",
        "subscription": subscription,
        "invoice": invoice_object(confirmation.invoice) if confirmation.invoice else None,
        "payment": payment_summary(payment) if payment else None,
        "job": {"id": job_id, "state_url": f"/v1/jobs/{job_id}"} if job_id else None,
        "events_url": f"/v1/jobs/{job_id}/events" if job_id else None,
    }


def payment_summary(payment: Payment) -> PaymentSummary:
    """Convert a payment to the summary of it in confirmations."""
    return {
        "id": payment.id,
        "object": "payment",
        "state": payment.state,
        "currency": payment.currency,
        "amount": format_amount(payment.amount, payment.currency),
        "action_url": payment.action_url,
        "error": dict(payment.error) if payment.error else None,
    }

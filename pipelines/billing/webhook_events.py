"""Jobs `gateway.event`: fetch what an event is about from its gateway, and apply the present state of it.

The payload is not trusted to be the newest, since events arrive twice, late and out of order. What has been applied
already changes nothing.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, assert_never

from models.billing import gateway_events, payment_methods, payments, refunds, settlement
from models.billing.gateway_events import GatewayEvent
from models.billing.payments import Payment
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob
from models.platform.database import Connection
from models.platform.errors import NotFound, PermanentFailure
from pipelines.billing import credit_note
from pipelines.billing.gateways.gateway import MethodDetached, News, PaymentNews, RefundNews, StoredMethod
from pipelines.billing.gateways.registry import Gateways


def run(gateways: Gateways, attempt: Attempt) -> Ending:
    """Apply the event of the job."""
    event = _read(attempt)
    if event.state in ("applied", "ignored"):
        return plain_ending(attempt, "completed", result={"state": event.state})
    news = gateways.get(event.gateway).fetch(event.payload)
    ending = plain_ending(attempt, "completed", result={"type": event.type})
    return Ending("completed", ending.events, result=ending.result, record=partial(apply, event=event, news=news))


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """Mark the event as failed, so that an operator finds it."""
    ending = plain_ending(attempt, state, error)
    event, message = _read(attempt), str((error or {}).get("message", state))

    def record(connection: Connection) -> None:
        gateway_events.end(connection, event, "failed", message)

    return Ending(state, ending.events, error=error, record=record)


def _read(attempt: Attempt) -> GatewayEvent:
    arguments = attempt.job.arguments
    with attempt.database.connection() as connection:
        event = gateway_events.read(connection, arguments["gateway"], arguments["event_id"])
    if event is None:
        raise PermanentFailure("The event does not exist any more.", code="not_found")
    return event


def apply(connection: Connection, event: GatewayEvent, news: News) -> list[NewJob]:
    """Apply what an event is about in the caller's transaction. Returns the jobs that follow."""
    following = _apply(connection, event, news)
    gateway_events.end(connection, event, "ignored" if following is None else "applied")
    return following or []


def _apply(connection: Connection, event: GatewayEvent, news: News) -> list[NewJob] | None:
    """Apply the news. Returns None if they are about nothing of ours."""
    if news is None:
        return None
    if isinstance(news, PaymentNews):
        payment = _find_payment(connection, event, news.payment_id, news.outcome.gateway_payment_id)
        if payment is None or payment.gateway_payment_id not in (None, news.outcome.gateway_payment_id):
            return None  # a copy that somebody has made at the gateway
        return settlement.settle(connection, payment, news.outcome)
    if isinstance(news, RefundNews):
        return _apply_refund(connection, event, news)
    if isinstance(news, StoredMethod):
        return _add_method(connection, event, news)
    if isinstance(news, MethodDetached):
        return [] if payment_methods.detach_any(connection, event.gateway, news.gateway_method_id) else None
    assert_never(news)


def _find_payment(
    connection: Connection, event: GatewayEvent, payment_id: str | None, gateway_payment_id: str | None
) -> Payment | None:
    """Return the payment, if it is one of the event's gateway."""
    payment = payments.read_any(connection, payment_id) if payment_id else None
    if payment is None and gateway_payment_id:
        payment = payments.read_of_gateway(connection, event.gateway, gateway_payment_id)
    return payment if payment and payment.gateway == event.gateway else None


def _apply_refund(connection: Connection, event: GatewayEvent, news: RefundNews) -> list[NewJob] | None:
    payment = _find_payment(connection, event, None, news.gateway_payment_id)
    if payment is None:
        return None
    refund = refunds.read(connection, news.refund_id, payment.account_id) if news.refund_id else None
    if refund is None:
        refund = refunds.add_foreign(connection, payment, news.amount, news.outcome)
        if refund is not None:
            refund = credit_note.of_foreign_refund(connection, payment, refund)
    return refunds.settle(connection, refund, news.outcome) if refund is not None else []


def _add_method(connection: Connection, event: GatewayEvent, news: StoredMethod) -> list[NewJob] | None:
    try:
        added = payment_methods.add(
            connection,
            news.account_id,
            gateway=event.gateway,
            gateway_method_id=news.gateway_method_id,
            label=news.label,
        )
    except NotFound:  # the account was erased, or belongs to another installation that uses the same gateway
        return None
    return [] if added else None

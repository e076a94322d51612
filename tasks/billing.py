"""The actors of the billing pool."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from pipelines.billing import (
    auto_top_up,
    charge,
    collection,
    customers,
    draft,
    dunning,
    grants,
    refund,
    renewal,
    spending_notices,
    usage_invoices,
    webhook_events,
)
from pipelines.billing.gateways.registry import Gateways
from tasks.job_runner import JobRunner

#: Threads, of which an account uses four. Billing is almost entirely waiting for gateways and Postgres.
THREADS = 5


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    gateways = Gateways(runner.settings, runner.database)
    runner.declare("payment.charge", Handler(run=partial(charge.run, gateways), end=charge.end))
    runner.declare("payment.check", Handler(run=partial(charge.check, gateways), end=charge.end))
    runner.declare("payment.refund", Handler(run=partial(refund.run, gateways), end=plain_ending))
    runner.declare("refund.check", Handler(run=partial(refund.check, gateways), end=plain_ending))
    runner.declare("gateway.event", Handler(run=partial(webhook_events.run, gateways), end=webhook_events.end))
    runner.declare("customer.delete", Handler(run=partial(customers.run, gateways), end=plain_ending))
    request = partial(collection.collect, gateways.default)
    runner.declare("invoice.draft", Handler(run=partial(draft.run, request), end=plain_ending))
    runner.declare("usage.invoice", Handler(run=usage_invoices.run, end=plain_ending))
    runner.declare("credits.expire", Handler(run=grants.run_expiry, end=plain_ending))
    runner.declare("credits.top_up", Handler(run=partial(auto_top_up.run, gateways.default), end=plain_ending))
    runner.declare("spending.notify", Handler(run=spending_notices.run, end=plain_ending))
    runner.declare("subscriptions.due", Handler(run=renewal.run_due, end=plain_ending))
    runner.declare("subscription.renew", Handler(run=renewal.run, end=plain_ending))
    runner.declare("subscription.notify", Handler(run=dunning.run_notify, end=plain_ending))
    runner.declare("invoice.collect", Handler(run=partial(dunning.run_collect, gateways.default), end=plain_ending))
    return {"billing": THREADS}

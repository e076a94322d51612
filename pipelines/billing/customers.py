"""The job `customer.delete`: delete the customer of a closed account at a payment gateway, with its payment methods."""

from datetime import UTC, datetime, timedelta

from models.billing import payment_methods, payments
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Connection
from models.platform.errors import Released
from pipelines.billing.gateways.registry import Gateways

#: Seconds until the next look at payments in progress. Those that were in doubt are looked up by their customer.
PAYMENTS_DELAY = 60.0

#: A customer is deleted after that time even if a payment is still in doubt: an operator decides it then.
LONGEST_WAIT = timedelta(days=1)


def enqueue_deletions(connection: Connection, account_id: str, run_at: datetime) -> None:
    """Enqueue the deletion of an account's customers at all gateways. Their ids are erased with its billing details."""
    for gateway, customer in payment_methods.read_customers(connection, account_id):
        arguments = {"gateway": gateway, "customer": customer, "account_id": account_id}
        enqueue(connection, NewJob("customer.delete", PLATFORM_ACCOUNT, arguments, run_at=run_at))


def run(gateways: Gateways, attempt: Attempt) -> Ending:
    """Delete the customer of the job. Raises Released while the account has payments in progress, and GatewayFailed."""
    arguments = attempt.job.arguments
    with attempt.database.connection() as connection:
        pending = payments.list_payments(connection, arguments["account_id"], state="pending", limit=100)
    in_progress = any(payment.gateway == arguments["gateway"] for payment in pending)
    if in_progress and datetime.now(UTC) - attempt.job.created_at < LONGEST_WAIT:
        raise Released("payments of the customer are in progress", delay=PAYMENTS_DELAY)
    gateways.get(arguments["gateway"]).delete_customer(arguments["customer"])
    return plain_ending(attempt, "completed", result={"gateway": arguments["gateway"]})

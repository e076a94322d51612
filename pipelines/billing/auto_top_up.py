"""The job `credits.top_up`: top up the credits that have fallen below what their account has asked for.

One top-up at a time: the next need is only looked at once it is paid. One whose payment has failed is tried again after
a day. All top-ups of a calendar month together stay within the account's monthly limit.
"""

import logging
from collections.abc import Iterator
from decimal import Decimal

from models.billing import billing_details, credits, invoice_states, top_ups
from models.billing.billing_details import BillingDetails
from models.billing.payments import GatewayName
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import enqueue
from models.platform.database import Connection, Database
from models.platform.errors import RequestError
from pipelines.billing import top_up
from pipelines.billing.collection import collect

log = logging.getLogger(__name__)

#: Accounts that one statement selects.
BATCH = 500


def run(gateway: GatewayName, attempt: Attempt) -> Ending:
    """Top up all accounts that need it, each in a transaction of its own."""
    started = 0
    for account_id in _accounts(attempt.database):
        attempt.check()
        started += _check(attempt.database, gateway, account_id)
    return plain_ending(attempt, "completed", result={"started": started})


def _accounts(database: Database) -> Iterator[str]:
    last = ""
    while True:
        with database.connection() as connection:
            accounts = top_ups.accounts_with_rule(connection, after=last, limit=BATCH)
        yield from accounts
        if len(accounts) < BATCH:
            return
        last = accounts[-1]


def _check(database: Database, gateway: GatewayName, account_id: str) -> bool:
    """Check an account. One that cannot be topped up does not keep the others from it."""
    try:
        with database.transaction() as connection:
            return check(connection, gateway, account_id)
    except RequestError as error:
        log.warning("The credits of account %s were not topped up: %s", account_id, error.message)
        return False


def check(connection: Connection, gateway: GatewayName, account_id: str) -> bool:
    """Top up an account if it needs it. Returns whether it does. Concurrent checks wait for the account's lock."""
    details = billing_details.lock_if_any(connection, account_id)
    if details is None or details.auto_top_up is None or not _needs_top_up(connection, details):
        return False
    invoice = top_up.start(connection, account_id, Decimal(details.auto_top_up["amount"]), automatic=True)
    for job in collect(gateway, connection, invoice):
        enqueue(connection, job)
    return True


def _needs_top_up(connection: Connection, details: BillingDetails) -> bool:
    """Return whether the credits are too low, no top-up is under way, and the monthly limit allows one."""
    rule = details.auto_top_up or {}
    if credits.available(connection, details) >= Decimal(rule["below"]):
        return False
    state = top_ups.read_state(connection, details)
    if state.unpaid is not None and state.retry:
        invoice_states.void(connection, state.unpaid, details.account_id)
        state = top_ups.read_state(connection, details)
    if state.unpaid is not None:
        return False
    return state.this_month + Decimal(rule["amount"]) <= Decimal(rule["monthly_limit"])

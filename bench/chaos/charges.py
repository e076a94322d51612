"""`python -m bench.chaos.charges`: kill workers while they charge, refund and renew, and compare with the books.

Each payment is of an invoice, with one of the simulated gateway's methods. Workers of the pool billing are killed with
SIGKILL at random moments. Afterwards every invoice has been charged once or not at all, by the gateway's books, each
missed period of a subscription is invoiced and paid once, and the audit of the books finds no difference.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import click

from bench.chaos import renewals
from bench.command import FAILED, HELP, broker_option, exit_code_of, file_option, write_json
from bench.harness.processes import ConfiguredScheduler, ConfiguredWorker, kill_tree, release_jobs, restart
from bench.harness.stack import BrokerName, Stack, running_stack
from bench.harness.waiting import wait_until
from bench.progress import Progress
from models.billing import billing_details, payment_methods, payments, refunds
from models.billing.invoice_lines import NewLine
from models.billing.payments import Payment
from models.jobs.jobs import enqueue
from models.platform.database import Connection, Database, fetch_all, fetch_one
from models.platform.ids import new_id
from ops.child_process import ChildProcess
from pipelines.billing import credit_note, invoicing
from pipelines.billing.audit import gateway_books, money
from pipelines.billing.credit_note import NewCreditNote
from pipelines.billing.gateways.registry import open_simulator
from pipelines.billing.gateways.simulator import Simulator

#: Methods of the simulated gateway, and how often they are used.
CARDS: Mapping[str, int] = {
    "pm_test_visa": 5, "pm_test_declined": 1, "pm_test_timeout": 3, "pm_test_duplicate_events": 1,
    "pm_test_action_required": 1, "pm_test_refund_pending": 1, "pm_test_refund_timeout": 1,
}  # fmt: skip

#: Methods of subscriptions.
RENEWING_CARDS = ("pm_test_visa", "pm_test_timeout", "pm_test_duplicate_events")

ACCOUNTS, WORKERS = 20, 2

#: Kills after which the rest of the work is done without faults.
MAX_KILLS = 60

#: Seconds that all work may take after the last kill.
PATIENCE = 120.0

UNFINISHED = """
SELECT count(*) AS count FROM jobs
WHERE state IN ('scheduled', 'queued', 'running', 'waiting') AND run_at < now() + interval '5 minutes'
  AND kind = ANY(%(kinds)s)
"""

KINDS = ("payment.charge", "payment.refund", "payment.check", "refund.check", "gateway.event", *renewals.KINDS)

#: Payments for each subscription.
PER_SUBSCRIPTION = 20

MAKE_CHECKS_DUE = "UPDATE jobs SET state = 'queued', run_at = now() WHERE kind = 'refund.check' AND state = 'scheduled'"

WAITING = "SELECT gateway_payment_id AS id FROM payments WHERE state = 'requires_action'"

# Every payment beside the charges of its invoice's customer in the gateway's books.
BOOKS = """
SELECT payments.id, payments.state, payments.amount, charge.state AS charged,
       (SELECT count(*) FROM simulated_objects AS other
        WHERE other.kind = 'charge' AND other.idempotency_key = payments.id) AS charges,
       invoices.state AS invoice, payments.refunded, coalesce(charge.returned, 0) AS returned
FROM payments JOIN invoices ON invoices.id = payments.invoice_id
LEFT JOIN simulated_objects AS charge ON charge.idempotency_key = payments.id
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did, and the differences that it found; none is right."""

    payments: Mapping[str, int]
    kills: int
    seconds: float
    differences: Sequence[str]

    def line(self) -> str:
        """Return one line about the run."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.payments.items()))
        return f"{states}; {self.kills} kills in {self.seconds:.0f} s; {len(self.differences)} differences"


@click.command(context_settings=HELP)
@click.option("--count", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Payments.")
@click.option("--seed", type=int, default=7, show_default=True, help="Determines methods and pauses between kills.")
@broker_option
@file_option("--json", "file", "Write the differences to this file too.")
@click.option("--patience", type=click.FloatRange(min=1), default=PATIENCE, show_default=True, metavar="SECONDS",
              help="How long the work of a phase may take after the last kill.")  # fmt: skip
def main(count: int, seed: int, broker: BrokerName, file: Path | None, patience: float) -> None:
    """Kill workers while they charge, and compare with the gateway's books. Exits with 1 after a difference."""
    progress = Progress()

    def work() -> int:
        with running_stack(broker) as stack:
            result = run(stack, count, random.Random(seed), patience)
        click.echo("\n".join([result.line(), *result.differences]))
        write_json(file, {"violations": [{"rule": "charges", "detail": each} for each in result.differences]})
        return FAILED if result.differences else 0

    sys.exit(exit_code_of("bench.chaos.charges", progress, work))


def run(stack: Stack, count: int, rng: random.Random, patience: float = PATIENCE) -> Result:
    """Charge `count` invoices, refund a part of every fourth payment, renew subscriptions, and check the books."""
    start, settings = time.monotonic(), stack.settings
    processes = [ConfiguredWorker(f"charges-{number}", settings, ["billing"]) for number in range(WORKERS)]
    with closing(Database.open(settings, size=4, name="charges")) as database:
        made = _request_payments(database, count, rng)
        subscribed = renewals.subscribe_accounts(database, -(-count // PER_SUBSCRIPTION), list(RENEWING_CARDS))
        with stack.servers.running([*processes, ConfiguredScheduler(settings)]) as children:
            workers = [children[process.name] for process in processes]
            kills = _kill_until_done(database, workers, rng, patience)
            simulator = open_simulator(settings, database)
            for charge_id in _waiting(database):
                simulator.answer(charge_id, confirmed=True)
            _request_refunds(database, made[::4])
            kills += _kill_until_done(database, workers, rng, patience)
            with database.transaction() as connection:
                connection.execute(MAKE_CHECKS_DUE)
            renewals.make_due(database, subscribed)
            kills += _kill_until_done(database, workers, rng, patience)
        found = [
            *_unfinished_differences(database),
            *_book_differences(database),
            *_renewal_differences(database, subscribed),
        ]
        found += [*_audit(database), *_gateway_audit(database, simulator)]
        return Result(_states(database), kills, time.monotonic() - start, found)


def _request_payments(database: Database, count: int, rng: random.Random) -> list[Payment]:
    """Insert accounts with payment methods, and invoices with their payments and jobs."""
    methods = [_new_account(database) for _ in range(min(ACCOUNTS, count))]
    cards = rng.choices(list(CARDS), weights=list(CARDS.values()), k=count)
    return [_request_payment(database, *methods[index % len(methods)], card) for index, card in enumerate(cards)]


def _new_account(database: Database) -> tuple[str, Mapping[str, str]]:
    """Insert an account with each payment method; returns its id and the methods' ids."""
    account_id, ids = new_id("acct"), {}
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'charges')", (account_id,))
        billing_details.ensure(connection, account_id, "EUR")
        for card in CARDS:
            added = payment_methods.add(
                connection, account_id, gateway="test", gateway_method_id=new_id(card), label=card
            )
            assert added is not None
            ids[card] = added.id
    return account_id, ids


def _request_payment(database: Database, account_id: str, methods: Mapping[str, str], card: str) -> Payment:
    with database.transaction() as connection:
        line = NewLine("fee", card, Decimal("12.50"))
        invoice = invoicing.issue(connection, account_id, reason="subscription", lines=[line])
        return payments.request_payment(
            connection, account_id, invoice_id=invoice.id, amount=invoice.amount_due, currency=invoice.currency,
            gateway="test", payment_method_id=methods[card],
        )  # fmt: skip


def _request_refunds(database: Database, made: Sequence[Payment]) -> None:
    """Request the refund of a part of those that have succeeded, each with a credit note."""
    for payment in made:
        with database.transaction() as connection:
            current = payments.read(connection, payment.id, payment.account_id)
            if current.state == "succeeded":
                note = NewCreditNote("chaos", Decimal("5.00"))
                refund = partial(_request_refund, connection, current)
                credit_note.issue(connection, current.invoice_id or "", current.account_id, note, refund)


def _request_refund(connection: Connection, payment: Payment, payment_id: str, amount: Decimal, note_id: str) -> None:
    _, job = refunds.new_refund(connection, payment, amount=amount, credit_note_id=note_id)
    enqueue(connection, job)


def _kill_until_done(database: Database, workers: Sequence[ChildProcess], rng: random.Random, patience: float) -> int:
    """Kill a worker every second or so while there is work; returns how many were killed."""
    kills = 0
    while _unfinished(database):
        time.sleep(rng.uniform(0.2, 1.0))
        victim = rng.choice(workers)
        kill_tree(victim.pid)
        victim.wait(5)
        release_jobs(database, victim.pid)
        restart(victim)
        kills += 1
        if kills == MAX_KILLS:
            break
    with suppress(TimeoutError):  # `_unfinished_differences` names what has not ended
        wait_until(lambda: not _unfinished(database), patience, interval=0.1, what="the end of all payments")
    return kills


def _unfinished(database: Database) -> int:
    with database.connection() as connection:
        row = fetch_one(connection, UNFINISHED, {"kinds": list(KINDS)})
    assert row is not None
    return int(row["count"])


def _unfinished_differences(database: Database) -> list[str]:
    count = _unfinished(database)
    return [f"{count} jobs have not ended"] if count else []


def _waiting(database: Database) -> list[str]:
    with database.connection() as connection:
        return [row["id"] for row in fetch_all(connection, WAITING)]


def _states(database: Database) -> Mapping[str, int]:
    with database.connection() as connection:
        return Counter(row["state"] for row in fetch_all(connection, BOOKS))


def _book_differences(database: Database) -> list[str]:
    """Return where our payments and the gateway's charges differ."""
    with database.connection() as connection:
        rows = fetch_all(connection, BOOKS)
    return [f"{row}" for row in rows if not _agrees(row)]


def _agrees(row: Mapping[str, object]) -> bool:
    paid = row["state"] == "succeeded"
    charged = row["charged"] == ("succeeded" if paid else "failed")
    return (
        charged
        and row["charges"] == 1
        and row["invoice"] == ("paid" if paid else "open")
        and (row["refunded"] == row["returned"])
    )


def _renewal_differences(database: Database, subscribed: Sequence[str]) -> list[str]:
    with database.connection() as connection:
        return list(renewals.differences(connection, subscribed))


def _gateway_audit(database: Database, simulator: Simulator) -> list[str]:
    end = datetime.now(UTC) + timedelta(seconds=1)
    return [str(each) for each in gateway_books.differences(database, simulator, end - timedelta(days=1), end)]


def _audit(database: Database) -> list[str]:
    with database.transaction() as connection:
        return [str(difference) for difference in money.differences(connection)]


if __name__ == "__main__":
    main()

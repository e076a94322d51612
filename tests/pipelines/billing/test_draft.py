"""Invoices of a period's usage."""

from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest

from models.billing import billing_details, credits, invoice_lines, invoice_states, invoices, payments, usage_lines
from models.billing.invoice_lines import NewLine
from models.platform.ids import new_id
from pipelines.billing import draft, invoicing
from pipelines.billing.collection import collect
from tests.pipelines.billing.books import (
    PERIOD_END,
    PERIOD_START,
    balance,
    check_books,
    give,
    new_customer,
    read_invoice,
    use,
)

FEE = NewLine("fee", "The plan", Decimal("9"))
RUN = partial(draft.run, partial(collect, "test"))


class Killed(BaseException):
    """The worker was killed."""


class MortalDatabase:
    """A database whose process is killed before its transaction with this number."""

    def __init__(self, database, lives):
        self._database, self._lives = database, lives

    def connection(self):
        return self._database.connection()

    @contextmanager
    def transaction(self):
        if self._lives == 0:
            raise Killed
        self._lives -= 1
        with self._database.transaction() as connection:
            yield connection


def start(database, account_id, *, reason="renewal", lines=(FEE,), **options):
    """Start a draft. Returns it with its job."""
    with database.transaction() as connection:
        return invoicing.start_draft(
            connection, account_id, reason=reason, subscription_id=None, period_start=PERIOD_START,
            period_end=PERIOD_END, lines=lines, **options,
        )  # fmt: skip


def subscribe_to(database, account_id, *, included):
    """Give the account a subscription to a new plan that includes this amount of usage."""
    plan = new_id("plan")
    with database.connection() as connection:
        connection.execute("INSERT INTO plans (id, name, limits) VALUES (%s, 'A plan', '{}')", (plan,))
        connection.execute(
            """INSERT INTO plan_versions (plan_id, version, name, limits, currency, included_amount)
            SELECT %s, 1, 'A plan', '{}', currency, %s FROM billing_details WHERE account_id = %s""",
            (plan, included, account_id),
        )
        connection.execute(
            """INSERT INTO subscriptions
               (id, account_id, plan_id, plan_version, state, started_at, version_since, period_start, period_end)
            VALUES (%s, %s, %s, 1, 'active', %s, %s, %s, %s)""",
            (new_id("sub"), account_id, plan, PERIOD_START, PERIOD_START, PERIOD_START, PERIOD_END),
        )


def lines_of(database, invoice):
    with database.connection() as connection:
        lines = invoice_lines.read_lines(connection, invoice.id, invoice.account_id)
    return [(line.kind, line.description, line.amount) for line in lines]


def payments_of(database, invoice):
    with database.connection() as connection:
        return payments.list_payments(connection, invoice.account_id, invoice_id=invoice.id)


def run(begin, settle, job):
    """Run the job to its end."""
    attempt = begin(job)
    ending = RUN(attempt)
    settle(attempt, ending)
    return ending


def test_usage_is_invoiced_by_model_and_agent(database, begin, settle):
    # Given usage of before and of after the end of the period
    account_id = new_customer(database, tax_rate="10")
    use(database, account_id, ["1.004", "1.004"])
    use(database, account_id, ["2.5"], agent="helper")
    use(database, account_id, ["0"], model="free")
    late = use(database, account_id, ["7"], at=PERIOD_END)
    started, job = start(database, account_id)

    # When
    run(begin, settle, job)

    # Then each line was rounded once
    invoice = read_invoice(database, started)
    assert lines_of(database, invoice) == [
        ("fee", "The plan", Decimal("9.00")),
        ("usage", "Usage of llama", Decimal("2.01")),
        ("usage", "Usage of llama, agent helper", Decimal("2.50")),
    ]
    assert (invoice.subtotal, invoice.tax, invoice.amount_due) == (Decimal("13.51"), Decimal("1.35"), Decimal("14.86"))
    check_books(database, account_id)

    # And what is left is on the next invoice
    with database.connection() as connection:
        assert balance(connection, account_id, "usage_unbilled") == 7
        rest = connection.execute(
            "SELECT job_id FROM usage_records WHERE account_id = %s AND billed_on IS NULL", (account_id,)
        ).fetchall()
    assert [row["job_id"] for row in rest] == late


def test_the_payment_of_what_is_due_is_requested_once(database, begin, settle):
    # Given an invoice of which a credit pays a part
    account_id = new_customer(database)
    give(database, account_id, "4")
    started, job = start(database, account_id)

    # When the job is repeated
    RUN(begin(job))
    run(begin, settle, job)

    # Then
    [payment] = payments_of(database, started)
    assert (payment.amount, payment.state) == (5, "pending")


def test_nothing_is_charged_if_credits_pay(database, begin, settle):
    account_id = new_customer(database)
    give(database, account_id, "9")
    started, job = start(database, account_id)

    run(begin, settle, job)

    assert payments_of(database, started) == []
    assert read_invoice(database, started).state == "paid"


@pytest.mark.parametrize("lives", range(5))
def test_a_kill_between_two_steps_changes_nothing(database, begin, settle, monkeypatch, lives):
    # Given usage of three batches
    monkeypatch.setattr(usage_lines, "BATCH", 2)
    account_id = new_customer(database)
    use(database, account_id, ["1.001"] * 5)
    started, job = start(database, account_id)

    # When the worker is killed at a step, and other usage arrives before the next attempt
    attempt = begin(job)
    attempt.database = MortalDatabase(database, lives)
    with pytest.raises(Killed):
        settle_nothing(RUN(attempt), lives)
    check_books(database, account_id)
    run(begin, settle, job)

    # Then
    invoice = read_invoice(database, started)
    assert (invoice.subtotal, invoice.state) == (Decimal("14.01"), "open")
    assert [payment.amount for payment in payments_of(database, started)] == [Decimal("14.01")]
    with database.connection() as connection:
        assert balance(connection, account_id, "usage_unbilled") == 0
        assert balance(connection, account_id, "rounding") == Decimal("-0.005")
    check_books(database, account_id)


RERUN = "hashjoin mergejoin hashagg sort material indexscan bitmapscan"  # leaves a subquery for each row


@pytest.mark.parametrize("forbidden", ["", "hashjoin", "hashjoin hashagg", RERUN])
def test_a_batch_has_at_most_its_size_whatever_the_plan(database, forbidden):
    account_id = new_customer(database)
    use(database, account_id, ["1"] * 5)
    started, _ = start(database, account_id)

    with database.transaction() as connection:
        for name in forbidden.split():
            connection.execute(f"SET LOCAL enable_{name} = off".encode())
        assert usage_lines.assign(connection, started.id, account_id, 2) == 2


def settle_nothing(ending, lives):
    """Be killed after all transactions, before the end of the job."""
    assert (ending.state, lives) == ("completed", 4)
    raise Killed


def test_an_overtaken_attempt_assigns_nothing_to_a_finalised_invoice(database, begin, settle):
    account_id = new_customer(database)
    started, job = start(database, account_id)
    run(begin, settle, job)
    use(database, account_id, ["3"])

    with database.transaction() as connection:
        assert usage_lines.assign(connection, started.id, account_id) == 0

    check_books(database, account_id)


def test_the_usage_of_a_void_invoice_is_on_the_next_one(database, begin, settle):
    # Given
    account_id = new_customer(database)
    use(database, account_id, ["3.3333"])
    started, job = start(database, account_id)
    run(begin, settle, job)
    with database.transaction() as connection:
        connection.execute("UPDATE payments SET state = 'failed' WHERE invoice_id = %s", (started.id,))

    # When
    with database.transaction() as connection:
        invoice_states.void(connection, started.id, account_id)
    check_books(database, account_id)
    again, job = start(database, account_id, lines=())
    run(begin, settle, job)

    # Then
    assert read_invoice(database, again).subtotal == Decimal("3.33")
    check_books(database, account_id)


@pytest.mark.parametrize(
    ("mode", "usage", "amounts"),
    [
        ("graduated", "8", [("included", "-8")]),
        ("graduated", "15", [("included", "-10")]),
        ("graduated", "20", [("included", "-10"), ("overage", "-2.5")]),
        ("graduated", "40", [("included", "-10"), ("overage", "2.5")]),
        ("volume", "20", [("included", "-10"), ("overage", "-5")]),
        ("volume", "40", [("included", "-10"), ("overage", "15")]),
    ],
)
def test_usage_beyond_the_included_amount_has_the_price_of_its_tier(database, begin, settle, mode, usage, amounts):
    # Given a plan that includes 10. The next 5 cost the list price, until 15 the half, and what is beyond 1.5 times
    account_id = new_customer(database)
    use(database, account_id, [usage])
    tiers = [("5", "1"), ("15", "0.5"), (None, "1.5")]
    overage = {"mode": mode, "tiers": [{"up_to": bound, "factor": factor} for bound, factor in tiers]}
    started, job = start(database, account_id, lines=(), included={"amount": "10", "overage": overage})

    # When
    run(begin, settle, job)

    # Then
    lines = lines_of(database, started)
    assert [(kind, amount) for kind, _, amount in lines[1:]] == [(kind, Decimal(amount)) for kind, amount in amounts]
    check_books(database, account_id)


def test_many_groups_are_one_line_together_that_leads_to_its_jobs(database):
    # Given more models than an invoice has lines
    account_id = new_customer(database)
    jobs = {
        model: use(database, account_id, [cost], model=model)[0] for model, cost in zip("abcd", "4321", strict=True)
    }
    started, _ = start(database, account_id, lines=())

    # When
    with database.transaction() as connection:
        usage_lines.assign(connection, started.id, account_id)
        groups = usage_lines.groups(connection, started.id, account_id, limit=2)
        invoice_lines.append_lines(connection, started.id, draft.usage_charges.usage_lines(groups), 2)

    # Then
    assert lines_of(database, started) == [
        ("usage", "Usage of a", 4), ("usage", "Usage of b", 3), ("usage", "Other usage", 3),
    ]  # fmt: skip
    with database.connection() as connection:
        found = [
            [
                usage.job_id
                for usage in usage_lines.usage_of_line(connection, started.id, account_id, n, after=None, limit=9)
            ]
            for n in (1, 2, 3)
        ]
        assert found == [[jobs["a"]], [jobs["b"]], [jobs["c"], jobs["d"]]]
        assert (
            usage_lines.usage_of_line(connection, started.id, account_id, 3, after=jobs["c"], limit=9)[0].model == "d"
        )
        assert usage_lines.usage_of_line(connection, started.id, new_customer(database), 3, after=None, limit=9) == []


def test_usage_of_less_than_a_minor_unit_waits_for_the_next_invoice(database, begin, settle):
    # Given
    account_id = new_customer(database)
    use(database, account_id, ["0.004"])
    _, job = start(database, account_id, reason="usage", lines=())

    # When
    ending = run(begin, settle, job)

    # Then there is no invoice of nothing
    assert ending.result == {"invoice_id": None}
    check_books(database, account_id)
    with database.connection() as connection:
        assert invoices.list_invoices(connection, account_id) == []
        assert balance(connection, account_id, "usage_unbilled") == Decimal("0.004")


def test_the_usage_of_a_draft_is_not_available(database):
    # Given a credit of 10, and usage of 3 of which a draft has 2
    account_id = new_customer(database)
    give(database, account_id, "10")
    use(database, account_id, ["2"])
    use(database, account_id, ["1"], at=PERIOD_END + timedelta(hours=1))
    started, _ = start(database, account_id, lines=())
    with database.transaction() as connection:
        usage_lines.assign(connection, started.id, account_id)

    # Then
    with database.connection() as connection:
        assert credits.available(connection, billing_details.read(connection, account_id)) == 7


@pytest.mark.parametrize(("usage", "available"), [("4", 10), ("7", 8)])
def test_usage_within_the_included_amount_leaves_the_credits(database, usage, available):
    # Given a credit of 10, and a subscription that includes usage of 5
    account_id = new_customer(database)
    give(database, account_id, "10")
    subscribe_to(database, account_id, included="5")

    # When the account has used some
    use(database, account_id, [usage])

    # Then only what is beyond the included amount is not available any more
    with database.connection() as connection:
        assert credits.available(connection, billing_details.read(connection, account_id)) == available

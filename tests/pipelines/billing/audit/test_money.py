"""Each check of the books finds a row that was corrupted, and nothing in books that agree."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from models.billing import billing_details, invoice_states, payments, usage_lines
from models.billing.invoice_lines import NewLine
from models.billing.settlement import settle
from models.jobs.jobs import NewJob, enqueue
from models.jobs.usage import Segment, TokenUsage, UsageSource, bill
from models.journal.archive import archive
from models.journal.events import event
from models.platform.database import fetch_all, fetch_one
from models.platform.ids import new_id
from pipelines.billing import draft, grants, invoicing
from pipelines.billing.audit.money import CHECKS, differences, run_check
from pipelines.billing.collection import collect
from pipelines.billing.gateways.gateway import ChargeRequest
from pipelines.billing.gateways.registry import open_simulator
from tests.databases import new_database
from tests.pipelines.billing.books import credit

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from)
VALUES (%s, 'llama', 'EUR', 2, 1, 10, %s)
"""


def end_turn(connection, account_id, output):
    """End a turn that has journalled so many tokens."""
    job = NewJob("turn.run", account_id)
    enqueue(connection, job)
    last = replace(event(1, "response.completed", {}), tokens=output)
    archive(connection, job.id, [event(0, "response.created", {}), last])
    connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (job.id,))
    row = fetch_one(connection, "SELECT created_at FROM jobs WHERE id = %s", (job.id,))
    usage, source = TokenUsage(1_000_000, 400_000, output), UsageSource(created_at=row["created_at"], key_id="key_1")
    bill(connection, usage, job_id=job.id, account_id=account_id, model="llama", source=source)
    return job.id


def end_shared_turn(connection, account_id):
    """End a turn of which an endpoint has generated 5 tokens after the 3 of the local engine."""
    job = NewJob("turn.run", account_id)
    enqueue(connection, job)
    change = {"model": "llama", "endpoint": "corp", "from_model": "llama", "from_endpoint": None, "tokens": 3}
    begun = replace(event(0, "sangha:engine.started", {"model": "llama", "endpoint": None}), tokens=3)
    archive(connection, job.id, [begun, replace(event(1, "sangha:engine.changed", change), tokens=5)])
    connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (job.id,))
    segments = [Segment("llama", "", 10, 0, 3), Segment("llama", "corp", 0, 0, 5)]
    bill(connection, TokenUsage(10, 0, 8), job_id=job.id, account_id=account_id, model="llama", segments=segments)


def invoice_usage(connection, account_id):
    """Invoice a fee and the usage so far."""
    invoice, _ = invoicing.start_draft(
        connection, account_id, reason="renewal", subscription_id=None, period_start=BEGAN,
        period_end=datetime.now(UTC) + timedelta(days=1), lines=[NewLine("fee", "The plan", Decimal("9.99"))],
    )  # fmt: skip
    usage_lines.assign(connection, invoice.id, account_id)
    return draft.finish(connection, invoice.id, account_id, None)


def charge(database, settings, account_id, invoice):
    """Pay what an invoice has due through the simulated gateway."""
    with database.transaction() as connection:
        collect("test", connection, invoice)
        (payment,) = payments.list_payments(connection, account_id, invoice_id=invoice.id)
    request = ChargeRequest(
        payment.id, account_id, payment.amount, payment.currency, customer=None, method=None,
        created_at=payment.created_at,
    )  # fmt: skip
    outcome = open_simulator(settings, database).charge(request)
    with database.transaction() as connection:
        settle(connection, payment, outcome)
        connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (payment.job_id,))


@pytest.fixture(scope="module")
def books(postgres, settings):
    """Books of one account with usage, credits, an invoice that was paid and partly credited, and a void one."""
    with new_database(postgres) as database:
        account_id = new_id("acct")
        with database.transaction() as connection:
            connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a customer')", (account_id,))
            connection.execute(INSERT_PRICE, (new_id("price"), BEGAN))
            billing_details.ensure(connection, account_id, "EUR")
            billing_details.set_tax(connection, account_id, name="VAT", rate=Decimal(19), note="")
            connection.execute("UPDATE accounts SET billed_since = %s", (BEGAN,))
            end_turn(connection, account_id, 1234)
            end_shared_turn(connection, account_id)
            grants.give(connection, account_id, Decimal(5), reason="welcome")
        with database.transaction() as connection:
            invoice = invoice_usage(connection, account_id)
        charge(database, settings, account_id, invoice)
        credit(database, account_id, invoice, "2.00")
        with database.transaction() as connection:
            end_turn(connection, account_id, 77)
            fee = NewLine("fee", "Another plan", Decimal("30"))
            void = invoicing.issue(connection, account_id, reason="subscription", lines=[fee])
            invoice_states.void(connection, void.id, account_id)
        yield database


def test_books_that_agree_have_no_difference(books):
    with books.transaction() as connection:
        assert list(differences(connection)) == []
    with books.connection() as connection:
        kinds = {row["kind"] for row in fetch_all(connection, "SELECT DISTINCT kind FROM postings")}
    assert kinds >= {"usage", "invoice", "void", "payment", "refund", "credit_note", "grant", "draw"}


INVOICE = "(SELECT id FROM invoices WHERE state = 'paid')"

#: What is corrupted, and the checks that must find it.
CORRUPTIONS = {
    "a usage posting has another amount": (
        "UPDATE postings SET amount = amount + 0.000001 WHERE kind = 'usage'", {"usage_posting", "spending"}),
    "a usage posting is missing": (
        "DELETE FROM postings WHERE id = (SELECT max(id) FROM postings WHERE kind = 'usage')",
        {"usage_posting", "usage_unbilled"}),
    "a usage posting is there twice": (
        "INSERT INTO postings (account_id, kind, reference, debit, credit, currency, amount) "
        "SELECT account_id, kind, reference, debit, credit, currency, amount FROM postings WHERE kind = 'usage'",
        {"usage_posting"}),
    "a posting has an unknown ledger account": (
        "UPDATE postings SET debit = 'pocket' WHERE kind = 'payment'", {"ledger_account", "payment_posting"}),
    "a posting has another currency": (
        "UPDATE postings SET currency = 'USD' WHERE kind = 'usage'", {"ledger_currency", "usage_posting"}),
    "a price was changed afterwards": ("UPDATE prices SET output = 11", {"usage_price"}),
    "a record has the price of another model": ("UPDATE prices SET model = 'other'", {"usage_price"}),
    "a price was not in force yet": ("UPDATE prices SET valid_from = now() + interval '1 day'", {"usage_price_time"}),
    "a newer price was in force": (
        "INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from) "
        "VALUES ('price_new', 'llama', 'EUR', 2, 1, 10, now() - interval '1 day')", {"usage_price_time"}),
    "usage of a billed account is free": (
        "UPDATE usage_records SET billed_amount = NULL, price_id = NULL, billed_on = NULL",
        {"usage_unposted", "usage_posting"}),
    "a record has other tokens than the journal": (
        "UPDATE usage_records SET output_tokens = output_tokens + 1", {"usage_tokens", "usage_price"}),
    "a turn was not billed": ("DELETE FROM usage_records", {"usage_tokens", "usage_posting"}),
    "a segment has other tokens": (
        "UPDATE usage_segments SET segment_output = segment_output + 1 WHERE position = 0",
        {"usage_segments", "usage_engines", "usage_price"}),
    "tokens count for another engine": (
        "UPDATE usage_segments SET segment_output = 8 - segment_output", {"usage_engines", "usage_price"}),
    "the spending is another": ("UPDATE spending SET amount = amount - 0.01 WHERE scope = ''", {"spending"}),
    "the spending is of another month": (
        "UPDATE spending SET month = month - interval '1 month'", {"spending"}),
    "the spending of a key is another": (
        "UPDATE spending SET amount = amount + 0.01 WHERE scope <> ''", {"spending_scope"}),
    "the spending of a key is missing": ("DELETE FROM spending WHERE scope <> ''", {"spending_scope"}),
    "a price is of another class": ("UPDATE prices SET service_class = 'batch'", {"usage_price_class"}),
    "background work has the price of interactive work": (
        "WITH job AS (UPDATE jobs SET queue = 'inference_batch' WHERE kind = 'turn.run') "
        "INSERT INTO prices (id, model, service_class, currency, input, cached_input, output, valid_from) "
        "VALUES ('price_batch', 'llama', 'batch', 'EUR', 2, 1, 10, '2026-01-01')", {"usage_price_class"}),
    "a record is on another invoice": (
        "UPDATE usage_records SET billed_on = 'inv_other' WHERE billed_on IS NULL",
        {"invoice_usage", "usage_unbilled"}),
    "a line has another amount": (
        "UPDATE invoice_lines SET amount = amount + 0.01 WHERE kind = 'fee' AND invoice_id = " + INVOICE,
        {"invoice_total"}),
    "a usage line has another exact amount": (
        "UPDATE invoice_lines SET exact = exact + 0.0001 WHERE kind = 'usage'", {"invoice_usage"}),
    "a total was changed": (
        "UPDATE invoices SET total = total + 1 WHERE state = 'paid'",
        {"invoice_total", "invoice_posting", "receivable"}),
    "a tax posting is missing": (
        "DELETE FROM postings WHERE kind = 'invoice' AND credit = 'tax' AND reference = " + INVOICE,
        {"invoice_posting"}),
    "a leg of a void invoice is missing": (
        "DELETE FROM postings WHERE kind = 'void' AND debit = 'revenue'", {"invoice_void"}),
    "an invoice was deleted": ("DELETE FROM invoices WHERE state = 'void'", {"invoice_number", "invoice_posting"}),
    "an invoice has another paid amount": (
        "UPDATE invoices SET paid = paid - 1 WHERE state = 'paid'", {"invoice_paid"}),
    "an open invoice has nothing due": ("UPDATE invoices SET state = 'open' WHERE state = 'paid'", {"invoice_state"}),
    "a credited amount is another": ("UPDATE invoices SET credited = 1 WHERE state = 'paid'", {"invoice_credited"}),
    "a credit note was changed": ("UPDATE credit_notes SET amount = amount + 1", {"invoice_credited"}),
    "a payment has another amount": (
        "UPDATE payments SET amount = amount + 1", {"payment_posting", "invoice_paid", "gateway_payment"}),
    "a payment was charged and not recorded": (
        "UPDATE payments SET state = 'failed', refunded = 0", {"gateway_payment", "payment_posting"}),
    "a payment is not in the gateway's books": ("DELETE FROM simulated_objects WHERE kind = 'charge'",
                                                {"gateway_payment"}),
    "a fee is not posted": ("UPDATE payments SET fee = fee + 0.01", {"payment_posting"}),
    "a refund is not posted": ("DELETE FROM postings WHERE kind = 'refund'", {"refund_posting", "receivable"}),
    "a payment has another refunded amount": ("UPDATE payments SET refunded = 0", {"payment_refunded"}),
    "a dispute is not posted": (
        "UPDATE payments SET state = 'disputed', disputed_amount = 1", {"dispute_posting"}),
    "a grant has another amount": ("UPDATE credit_grants SET amount = amount + 1", {"credit_balance"}),
    "a draw is missing": ("DELETE FROM credit_draws", {"credit_draw", "draw_posting", "invoice_paid"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_row_is_found(books, name):
    corruption, expected = CORRUPTIONS[name]

    # When a row is corrupted
    with books.connection() as connection, connection.transaction(force_rollback=True):
        assert connection.execute(corruption).rowcount > 0
        found = [difference for check in CHECKS for difference in run_check(connection, check)]

    # Then the checks name it, with what was expected
    assert {difference.check for difference in found} >= expected
    assert all(difference.subject and difference.expected != difference.found for difference in found)


def test_every_check_has_a_corruption_that_it_finds():
    # The entries add up to zero by construction: no row can be corrupted so that they do not.
    covered = {name for _, names in CORRUPTIONS.values() for name in names}

    assert {check.name for check in CHECKS} - covered == {"ledger_balance"}

"""Each promise that its rows break is found, and nothing in rows that keep them all."""

from dataclasses import replace

import pytest

from models.jobs.jobs import NewJob, enqueue
from models.jobs.usage import TokenUsage, UsageSource, bill
from models.jobs.workers import register
from models.journal.archive import archive
from models.journal.events import event
from models.platform.database import fetch_all
from models.platform.ids import new_id
from models.reports import promises
from models.reports.promises import PROMISES, STATEMENTS, check_all, results
from tests.databases import new_database
from tests.pipelines.billing.books import give, issue_fee, new_customer, pay, reset_seller, use
from web.api.system.state_gauges import PROMISES as METRICS
from web.api.system.state_gauges import promise_values

INSERT_RESPONSE = """
INSERT INTO responses (id, account_id, job_id, thread, request, input, usage) VALUES (%s, %s, %s, 't', '{}', '[]', '{}')
"""


def end_turn(connection, account_id, state="completed"):
    """Insert a turn that has ended, with its answer, its events and its usage."""
    job = NewJob("turn.run", account_id)
    enqueue(connection, job)
    events = [event(number, "response.output_text.delta", {}) for number in range(5)]
    archive(connection, job.id, events[:2])
    archive(connection, job.id, [*events[2:4], replace(events[4], tokens=10)])
    connection.execute(INSERT_RESPONSE, (new_id("resp"), account_id, job.id))
    bill(connection, TokenUsage(10, 0, 10), job_id=job.id, account_id=account_id, model="llama", source=UsageSource())
    connection.execute("UPDATE jobs SET state = %s, finished_at = now() WHERE id = %s", (state, job.id))
    return job.id


@pytest.fixture(scope="module")
def own_database(postgres):
    """A database without other tests' rows."""
    with new_database(postgres) as database:
        yield database


TABLES = (
    "jobs, job_events, responses, usage_records, postings, payments, invoices, credit_grants, promise_checks, workers"
)


@pytest.fixture
def books(own_database):
    """A database whose rows keep all promises: turns, usage, a credit, an invoice that was paid."""
    database = own_database
    with database.transaction() as connection:
        connection.execute(f"TRUNCATE {TABLES} CASCADE")
    reset_seller(database)
    account_id = new_customer(database, tax_rate="19")
    with database.transaction() as connection:
        for state in ("completed", "completed", "cancelled", "failed"):
            end_turn(connection, account_id, state)
    use(database, account_id, ["0.25", "1"])
    give(database, account_id, "5")
    pay(database, account_id, issue_fee(database, account_id))
    return database


def check(database):
    """Check at once, and return how many rows break each promise."""
    check_all(database, grace=0, interval=0)
    with database.connection() as connection:
        values = dict(promise_values(connection))
    return {promise: values[metric][()] for promise, metric in METRICS.items()}


def execute(database, statement):
    with database.transaction() as connection:
        connection.execute(statement)


def run_turn(database, state, **columns):
    """Insert a turn that is running or waiting."""
    job = NewJob("turn.run", new_customer(database))
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute("UPDATE jobs SET state = %s WHERE id = %s", (state, job.id))
        for column, value in columns.items():
            connection.execute(f"UPDATE jobs SET {column} = %s WHERE id = %s", (value, job.id))
    return job


LAST_TURN = "(SELECT max(id) FROM jobs WHERE kind = 'turn.run' AND state = 'completed')"
CHUNK = f"job_id = {LAST_TURN} AND first_sequence = 2"
POSTING = "INSERT INTO postings (account_id, kind, reference, leg, debit, credit, currency, amount) "

#: What breaks a promise, and the promise.
BREACHES = {
    "an answer is not recorded": (
        "lost_turns", f"UPDATE responses SET usage = NULL WHERE job_id = {LAST_TURN}"),
    "a response is missing": ("lost_turns", f"DELETE FROM responses WHERE job_id = {LAST_TURN}"),
    "a chunk is missing": (
        "repeated_events", f"DELETE FROM job_events WHERE job_id = {LAST_TURN} AND first_sequence = 0"),
    "a chunk overlaps another": ("repeated_events", f"UPDATE job_events SET first_sequence = 1 WHERE {CHUNK}"),
    "a line is there twice": ("repeated_events", f"UPDATE job_events SET events = events || E'\\n{{}}' WHERE {CHUNK}"),
    "usage is posted twice": (
        "double_charges", POSTING + "SELECT account_id, kind, reference, 0, debit, credit, currency, amount "
        "FROM postings WHERE kind = 'usage' ORDER BY id LIMIT 1"),
    "more tokens are billed than journalled": (
        "double_charges", f"UPDATE usage_records SET output_tokens = 11 WHERE job_id = {LAST_TURN}"),
    "an invoice is paid twice": (
        "double_charges", "WITH twice AS (INSERT INTO payments (id, account_id, invoice_id, gateway, currency, amount, "
        "state) SELECT id || '2', account_id, invoice_id, gateway, currency, amount, state FROM payments RETURNING *) "
        + POSTING + "SELECT account_id, 'payment', id, 0, 'gateway', 'receivable', currency, amount FROM twice"),
    "a leg of an invoice is missing": (
        "unbalanced_postings", "DELETE FROM postings WHERE kind = 'invoice' AND leg = 0"),
    "an invoice is posted with another amount": (
        "unbalanced_postings", "UPDATE postings SET amount = amount + 1 WHERE kind = 'invoice' AND leg = 0"),
    "a payment is posted with another amount": (
        "unbalanced_postings", "UPDATE postings SET amount = amount - 1 WHERE kind = 'payment'"),
    "less usage is posted than recorded": (
        "unbalanced_postings", "UPDATE usage_records SET created_at = now(), billed_amount = billed_amount + 1"
        " WHERE billed_amount = 1"),
}  # fmt: skip


def test_rows_that_keep_all_promises_break_none(books):
    assert check(books) == dict.fromkeys(PROMISES, 0)


@pytest.mark.parametrize(("promise", "statement"), BREACHES.values(), ids=BREACHES)
def test_a_breach_raises_the_gauge_of_its_promise_only_and_until_it_is_repaired(books, promise, statement, caplog):
    # Given rows that keep all promises, when one is changed
    execute(books, statement)
    # Then the gauge of its promise rises, and stays in later passes, whose windows do not have the row
    assert check(books) == {**dict.fromkeys(PROMISES, 0), promise: 1}
    assert check(books)[promise] == 1
    # And it is logged once, with what is broken
    with books.connection() as connection:
        ((subject,),) = [row["breaches"] for row in fetch_all(
            connection, "SELECT breaches FROM promise_checks WHERE promise = %s", (promise,))]  # fmt: skip
    assert caplog.text.count(f"The promise of no {promise.replace('_', ' ')} is broken by {subject}") == 1


def test_a_breach_that_is_repaired_lowers_the_gauge(books):
    execute(books, BREACHES["an answer is not recorded"][1])
    assert check(books)["lost_turns"] == 1

    execute(books, "UPDATE responses SET usage = '{}'")

    assert check(books)["lost_turns"] == 0


def test_a_turn_whose_worker_is_gone_is_lost(books):
    # Given a turn of a live worker, and one of a worker that is not registered
    with books.transaction() as connection:
        register(connection, "live", host="h", pid=1, pools=[], threads={})
        connection.execute("UPDATE workers SET seen_at = now() + interval '1 h'")
    run_turn(books, "running", worker="live")
    assert check(books)["lost_turns"] == 0

    run_turn(books, "running", worker="gone")

    assert check(books)["lost_turns"] == 1


def test_a_turn_that_waits_for_nothing_is_lost(books):
    # Given a turn that waits for a child
    parent = run_turn(books, "waiting")
    child = run_turn(books, "queued", parent_id=parent.id)
    assert check(books)["lost_turns"] == 0

    execute(books, f"UPDATE jobs SET state = 'failed', finished_at = now() WHERE id = '{child.id}'")

    assert check(books)["lost_turns"] == 1


def test_rows_of_unfinished_transactions_and_those_before_the_window_are_left_alone(books):
    execute(books, BREACHES["an answer is not recorded"][1])

    check_all(books, interval=0)  # whose grace is longer than the age of the turn

    with books.connection() as connection:
        assert results(connection)["lost_turns"].breaches == 0
        connection.execute("UPDATE promise_checks SET checked_to = now()")
    assert check(books)["lost_turns"] == 0


def test_a_pass_within_the_interval_or_beside_another_scheduler_does_nothing(books, monkeypatch):
    check(books)
    execute(books, BREACHES["an answer is not recorded"][1])
    with books.connection() as connection:
        checked = dict(promise_values(connection))
    # When a pass follows at once, or another one holds the row
    check_all(books, grace=0)
    with books.transaction() as other:
        other.execute("SELECT FROM promise_checks FOR UPDATE")
        check_all(books, grace=0, interval=0)
    # Then nothing was checked
    with books.connection() as connection:
        assert dict(promise_values(connection)) == checked


def test_gauges_are_absent_before_the_first_check(books):
    with books.connection() as connection:
        assert dict(promise_values(connection)) == {}


@pytest.mark.parametrize("promise", ["lost_turns", "repeated_events", "double_charges"])
def test_a_pass_reads_ended_jobs_by_the_time_of_their_end(books, promise):
    # Given many jobs that ended long ago
    with books.transaction() as connection:
        account_id = new_customer(books)
        connection.execute(
            "INSERT INTO jobs (id, account_id, kind, queue, arguments, state, run_at, finished_at)"
            " SELECT 'job_' || number, %s, 'turn.run', 'inference', '{}', 'completed', now(),"
            " now() - interval '1 day' FROM generate_series(1, 5000) AS number",
            (account_id,),
        )
    with books.connection() as connection:
        connection.execute("ANALYZE jobs")
        parameters = {"since": "2026-01-01", "until": "2026-01-02", "before": "2026-01-01", "known": [], "grace": 1}
        # When the statement is planned for a window
        rows = fetch_all(connection, "EXPLAIN " + STATEMENTS[promise], parameters)
    # Then it reads the index in the order of the ends
    plan = "\n".join(row["QUERY PLAN"] for row in rows)
    assert "jobs_movable" in plan
    assert "Seq Scan on jobs " not in plan


def test_the_number_of_breaches_is_bounded(books, monkeypatch):
    monkeypatch.setattr(promises, "MAX_BREACHES", 1)
    execute(books, "UPDATE responses SET usage = NULL")

    assert check(books)["lost_turns"] == 1

"""Reports of errors, memories, revenue and latency, from what the platform has written."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from models.billing.postings import Leg, post
from models.platform.database import fetch_one
from models.platform.errors import InvalidRequest
from models.platform.ids import new_id
from models.reports import error_counts, memory_counts
from pipelines.reporting.build_report import build_report
from pipelines.reporting.report_request import ReportRequest

NOW = datetime.now(UTC)


@pytest.fixture
def request_of(account):
    """`request_of(kind, …)` → a request for the account's last two hours."""

    def request_of(kind, **options):
        return ReportRequest(kind, NOW - timedelta(hours=1), NOW + timedelta(hours=1), account_id=account, **options)

    return request_of


@pytest.fixture
def report(database):
    """`report(request)` → the table."""

    def report(request):
        with database.transaction() as connection:
            return build_report(connection, request)

    return report


INSERT_JOB = """
INSERT INTO jobs (id, account_id, kind, queue, state, owner_id)
VALUES (%(id)s, %(account_id)s, 'tool.call', 'tools', 'running', 'user_1')
"""
END_JOB = "UPDATE jobs SET state = %(state)s, error = %(error)s, finished_at = now() WHERE id = %(id)s"


def end_job(connection, account, state, error=None):
    job = {"id": new_id("job"), "account_id": account, "state": state, "error": error}
    connection.execute(INSERT_JOB, job)
    connection.execute(END_JOB, job)
    return job["id"]


def test_errors_are_counted_once_though_jobs_are_deleted_and_counts_merged(database, account, request_of, report):
    # Given jobs that ended in several ways
    with database.connection() as connection:
        ended = [
            end_job(connection, account, "failed", '{"code": "too_large", "message": ""}') for _ in range(2)
        ] + [end_job(connection, account, "dead", '{"code": "crashed", "message": ""}'),
             end_job(connection, account, "cancelled"), end_job(connection, account, "completed")]  # fmt: skip
        # When they are deleted, and the counts are merged
        connection.execute("DELETE FROM jobs WHERE id = ANY(%s)", (ended,))
    request = request_of("errors", group_by=("user",))
    before = report(request)
    with database.connection() as connection:
        connection.execute("UPDATE error_counts SET quarter = quarter - interval '15 minutes' WHERE account_id = %s",
                           (account,))  # fmt: skip
        error_counts.merge(connection)
        error_counts.merge(connection)
        row = fetch_one(connection, "SELECT count(*) AS rows FROM error_counts WHERE account_id = %s", (account,))
    # Then the report has those that did not complete
    assert row["rows"] == 3
    assert before.rows == report(request).rows == [
        ("user_1", "tool.call", "cancelled", None, 1),
        ("user_1", "tool.call", "dead", "crashed", 1),
        ("user_1", "tool.call", "failed", "too_large", 2),
    ]  # fmt: skip
    assert before.totals == [None, None, None, None, 4]


INSERT_MEMORY = """
INSERT INTO memories (id, account_id, user_id, space_id, ordinal, text, occurred_at)
SELECT %(prefix)s || number, %(account_id)s, %(user_id)s, %(space_id)s, number, '', now()
FROM generate_series(1, 5) AS number
"""


def test_memories_that_are_created_closed_and_deleted_change_the_number_that_live(
    database, account, request_of, report
):
    # Given five memories, of which one was closed and two, the closed one among them, were deleted
    user_id, prefix = new_id("user"), new_id("mem")
    with database.connection() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
        space = fetch_one(
            connection,
            "INSERT INTO memory_spaces (account_id, user_id) VALUES (%s, %s) RETURNING id",
            (account, user_id),
        )
        parameters = {"prefix": prefix, "account_id": account, "user_id": user_id, "space_id": space["id"]}
        connection.execute(INSERT_MEMORY, parameters)
        connection.execute("UPDATE memories SET closed_at = now() WHERE id = %s", (f"{prefix}1",))
        connection.execute("DELETE FROM memories WHERE id = ANY(%s)", ([f"{prefix}1", f"{prefix}2"],))
    # When a report is read, and one after all memories are deleted with their account
    before = report(request_of("memory", group_by=("user",)))
    with database.connection() as connection:
        connection.execute("DELETE FROM memory_spaces WHERE id = %s", (space["id"],))
        memory_counts.merge(connection)
    after = report(request_of("memory"))
    later = report(replace(request_of("memory"), start=NOW + timedelta(minutes=45)))
    # Then both have the numbers
    assert before.rows == [(user_id, 5, 2, 3)]
    assert after.rows == [(5, 5, 0)]
    assert later.rows == [(0, 0, 0)]


def test_revenue_is_what_the_ledger_has_moved(database, account, request_of, report):
    invoice = new_id("inv")
    with database.connection() as connection:
        for kind, legs in {
            "invoice": [Leg("receivable", "revenue", Decimal(19)), Leg("receivable", "tax", Decimal("3.61"))],
            "payment": [Leg("gateway", "receivable", Decimal("22.61"))],
            "refund": [Leg("receivable", "gateway", Decimal(2))],
            "grant": [Leg("promotions", "credits", Decimal(7))],
            "usage": [Leg("usage_unbilled", "revenue", Decimal(1000))],
        }.items():
            post(connection, account, kind, invoice, legs, currency="EUR")

    table = report(request_of("revenue", interval="month", time_zone="Asia/Kathmandu"))

    (row,) = table.rows
    amounts = {column.name: value for column, value in zip(table.columns, row, strict=True) if value}
    amounts.pop("time")
    assert amounts == {
        "currency": "EUR", "invoiced": Decimal("22.61"), "tax": Decimal("3.61"), "paid": Decimal("22.61"),
        "refunded": Decimal(2), "credits_added": Decimal(7),
    }  # fmt: skip
    assert table.totals[1:] == list(row[1:])


def test_a_group_that_a_report_does_not_have_is_rejected(request_of, report):
    with pytest.raises(InvalidRequest, match=r"The report 'revenue' has no model\."):
        report(request_of("revenue", group_by=("model",)))


def test_a_filter_does_not_widen_what_a_user_may_see(database, account, request_of, report):
    with database.connection() as connection:
        end_job(connection, account, "failed")
    request = replace(request_of("errors", filters={"user": ["user_1"]}), user_id="user_2")

    assert report(request).rows == []

"""Reports of usage equal the sum over the records, at any time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from models.platform.database import fetch_one
from models.reports import histograms, usage_rollups, usage_sums
from models.reports.selection import Selection
from tests.models.reports.records import (
    Record,
    add_accounts,
    add_up,
    as_groups,
    update,
    update_all,
    update_next_account,
    write,
)

ACCOUNTS = (1, 2, 3)

#: Summer time ends in Berlin on 25 October at 01:00 UTC, in Havana, at its midnight, on 1 November, and it begins in
#: Santiago at midnight on 6 September. Lord Howe changes by half an hour. Kathmandu and Chatham have 45 minutes.
ZONES = (
    "UTC", "Europe/Berlin", "America/Havana", "America/Santiago", "Asia/Kathmandu", "Pacific/Chatham",
    "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns",
)  # fmt: skip

BEGINS = (datetime(2026, 10, 24, 20, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC),
          datetime(2026, 9, 5, 23, tzinfo=UTC), datetime(2026, 4, 4, 11, tzinfo=UTC))  # fmt: skip

times = st.builds(
    lambda begin, minutes, seconds: begin + timedelta(minutes=minutes, seconds=seconds),
    st.sampled_from(BEGINS), st.integers(0, 3000), st.integers(0, 59),
)  # fmt: skip
records = st.builds(
    Record,
    number=st.integers(0, 30),
    account=st.sampled_from(ACCOUNTS),
    model=st.sampled_from(("small", "large")),
    tokens=st.integers(0, 2_000_000_000),
    created_at=times,
    amount=st.none() | st.decimals(0, 100, places=8),
    user=st.sampled_from((None, "user_1", "user_2")),
)
periods = st.tuples(times, times).map(sorted).filter(lambda period: period[0] < period[1])
selections = st.builds(
    lambda period, zone, interval, groups, filters: Selection(*period, zone, interval, groups, filters),
    periods,
    st.sampled_from(ZONES),
    st.sampled_from((None, "hour", "day", "month")),
    st.lists(st.sampled_from(("account_id", "user_id", "model", "class")), unique=True),
    st.fixed_dictionaries(
        {},
        optional={
            "account_id": st.just(["acct_1"]) | st.just(["acct_2", "acct_3"]),
            "user_id": st.just(["user_1"]),
            "model": st.just(["large"]),
            "job_kind": st.just(["turn.run"]),
        },
    ),
)
steps = st.one_of(records, records, selections, st.sampled_from(("update", "next account", "crash", "restore")))


@pytest.fixture
def accounts(empty_database):
    """A database with the accounts of the records."""
    add_accounts(empty_database, ACCOUNTS)
    return empty_database


def check(database, selection):
    with database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows = usage_sums.usage(connection, selection)
        assert as_groups(rows, selection) == add_up(connection, selection)
        measured = usage_sums.latency(connection, selection)
        assert sum(row["samples"] for row in measured) == sum(row["jobs"] for row in rows)


class Crash(Exception):
    pass


def crash(database):
    """Update, and die before the commit."""
    with suppress(Crash), database.transaction() as connection:
        usage_rollups.update(connection)
        raise Crash


def restore(database):
    """Let another server number the transactions, lower than this one has."""
    with database.connection() as connection:
        connection.execute("UPDATE rollup_state SET server = server + 1, watermark = '9000000000'")
        connection.execute("UPDATE usage_records SET changed_in = '8000000000' WHERE changed_in >= '0'")


ACTIONS = {"update": update, "next account": update_next_account, "crash": crash, "restore": restore}


@effort(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=40), selections)
def test_a_report_equals_the_sum_over_the_records(accounts, actions, last):
    with accounts.connection() as connection:
        connection.execute("DELETE FROM usage_records")
        connection.execute("DELETE FROM usage_rollups")
        connection.execute("DELETE FROM latency_rollups")
    for action in (*actions, last, "update", last):
        if isinstance(action, Record):
            with accounts.transaction() as connection:
                write(connection, action)
        elif isinstance(action, Selection):
            check(accounts, action)
        else:
            ACTIONS[action](accounts)


DAY = Selection(BEGINS[0], BEGINS[0] + timedelta(days=1), groups=("account_id", "model"))


def test_a_record_whose_transaction_commits_after_an_update_is_reported(accounts):
    # Given an older transaction that has written a record and not ended
    update_all(accounts)
    with accounts.transaction() as late:
        write(late, Record(1, 1, "small", 5, BEGINS[0]))
        # When later ones commit, and the roll-ups are brought up to date
        with accounts.transaction() as connection:
            write(connection, Record(2, 1, "small", 7, BEGINS[0]))
        update(accounts)
        check(accounts, DAY)
    # Then its record is in the report as soon as it commits, and in the sums after the next update
    check(accounts, DAY)
    update(accounts)
    with accounts.connection() as connection:
        row = fetch_one(connection, "SELECT sum(input_tokens)::int AS tokens FROM usage_rollups")
    assert row["tokens"] == 12


def test_reports_are_exact_while_records_change_and_two_updaters_run(accounts):
    stop = threading.Event()

    def change(offset):
        for number in range(200):
            with accounts.transaction() as connection:
                created_at = BEGINS[0] + timedelta(minutes=number % 90)
                write(connection, Record(offset + number % 60, 1 + number % 3, "small", number, created_at))

    def keep_updating():
        while not stop.is_set():
            update(accounts)
            update_next_account(accounts)

    with ThreadPoolExecutor(4) as pool:
        updaters = [pool.submit(keep_updating) for _ in range(2)]
        writers = [pool.submit(change, offset) for offset in (0, 100)]
        while not all(writer.done() for writer in writers):
            check(accounts, DAY)
        stop.set()
        for future in (*updaters, *writers):
            future.result(60)
    update_all(accounts)
    check(accounts, DAY)


def test_unchanged_quarter_hours_are_read_from_the_sums(accounts):
    # Given sums that differ from the records
    with accounts.transaction() as connection:
        write(connection, Record(1, 1, "small", 5, BEGINS[0]))
    update_all(accounts)
    with accounts.connection() as connection:
        connection.execute("UPDATE usage_rollups SET input_tokens = 1000")
        # When a report is read
        (row,) = usage_sums.usage(connection, DAY)
        # Then it has the sums
        assert row["input_tokens"] == 1000
        # And those of the record again once it has changed
        write(connection, Record(1, 1, "small", 6, BEGINS[0]))
        (row,) = usage_sums.usage(connection, DAY)
        assert row["input_tokens"] == 6


def test_an_invoice_does_not_mark_the_records_that_it_bills(accounts):
    with accounts.transaction() as connection:
        write(connection, Record(1, 1, "small", 5, BEGINS[0], Decimal(1)))
    update_all(accounts)
    with accounts.connection() as connection:
        connection.execute("UPDATE usage_records SET billed_on = 'inv_1'")
    with accounts.transaction() as connection:
        assert usage_rollups.update(connection) == 0


def test_quantiles_are_those_of_the_values_up_to_the_width_of_a_bucket():
    values = sorted(0.002 * 1.01**number for number in range(1000))
    buckets = {}
    for value in values:
        bucket = sum(bound <= value for bound in histograms.BOUNDS)
        buckets[bucket] = buckets.get(bucket, 0) + 1
    for share in (0.5, 0.95, 0.99):
        assert histograms.quantile(buckets, share) == pytest.approx(values[int(share * 1000) - 1], rel=0.05)
    assert histograms.quantile({}, 0.5) is None

"""Reports of usage equal the sum over the records, at any time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations, product

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from models.platform.database import fetch_one
from models.reports import histograms, usage_rollups, usage_sums
from models.reports.selection import Selection
from tests.models.reports.records import (
    Deletion,
    Record,
    add_accounts,
    add_up,
    as_groups,
    as_samples,
    count_samples,
    delete,
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

#: Records and periods meet at the edges of few quarter hours, around the changes of the zones.
times = st.builds(
    lambda begin, quarters, offset: begin + timedelta(hours=3, minutes=15 * quarters, seconds=offset),
    st.sampled_from(BEGINS), st.integers(0, 15), st.sampled_from((0, 1, 420, 899)),
)  # fmt: skip
records = st.builds(
    Record,
    number=st.integers(0, 9),
    account=st.sampled_from(ACCOUNTS),
    model=st.sampled_from(("small", "large")),
    tokens=st.integers(0, 2_000_000_000),
    created_at=times,
    amount=st.none() | st.decimals(0, 100, places=8),
    user=st.sampled_from((None, "user_1", "user_2")),
    first_token=st.none() | st.floats(0, 5000, width=32, allow_subnormal=False),
    speed=st.none() | st.floats(0, 5000, width=32, allow_subnormal=False),
)
deletions = st.builds(Deletion, number=st.integers(0, 9))
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
ACTIONS = ("update", "next account", "crash", "restore", "restore with lower numbers", "some transactions")
steps = st.one_of(records, records, deletions, selections, st.just("update all"), st.sampled_from(ACTIONS))


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
        assert as_samples(usage_sums.latency(connection, selection), selection) == count_samples(connection, selection)


class Crash(Exception):
    pass


def crash(database):
    """Update, and die before the commit."""
    with suppress(Crash), database.transaction() as connection:
        usage_rollups.update(connection)
        raise Crash


# A restored database has the marks that another server has set. This one comes to some of these numbers soon.
FOREIGN_MARKS = """
UPDATE usage_records SET changed_in = (pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                                       + abs(hashtext(job_id)) % 20 - 5)::text::xid8
"""
ANOTHER_SERVER = "UPDATE usage_quarters_state SET counted_on = 'another'"
HIGHER_NUMBERS = "UPDATE usage_quarters_state SET counted = '9000000000:9000000000:'"


def restore(database, state=ANOTHER_SERVER):
    """Let another server number the transactions."""
    with database.transaction() as connection:
        connection.execute("ALTER TABLE usage_records DISABLE TRIGGER usage_records_replaced")
        connection.execute(FOREIGN_MARKS)
        connection.execute("ALTER TABLE usage_records ENABLE TRIGGER usage_records_replaced")
        connection.execute(state)


def run_transactions(database):
    """Use up some numbers of transactions."""
    for _ in range(10):
        with database.transaction() as connection:
            connection.execute("SELECT pg_current_xact_id()")


def act(database, action):
    match action:
        case Selection():
            check(database, action)
        case Record():
            with database.transaction() as connection:
                write(connection, action)
        case Deletion():
            with database.transaction() as connection:
                delete(connection, action)
        case "update":
            update(database)
        case "update all":
            update_all(database)
        case "next account":
            update_next_account(database)
        case "crash":
            crash(database)
        case "restore":
            restore(database)
        case "restore with lower numbers":
            restore(database, HIGHER_NUMBERS)
        case "some transactions":
            run_transactions(database)


RESET = """
DELETE FROM usage_records;
TRUNCATE usage_quarters, replaced_usage;
UPDATE usage_quarters_state SET counted_on = '', counted_accounts = '';
"""


@effort(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, min_size=10, max_size=30), st.lists(steps, min_size=10, max_size=40), selections)
def test_a_report_equals_the_sum_over_the_records(accounts, first, actions, last):
    with accounts.connection() as connection:
        connection.execute(RESET)
    for action in (*first, *actions, last, "update", last):
        act(accounts, action)


@pytest.fixture(params=["summed up", "counted later", "without sums"])
def edges(accounts, request):
    """Records at the edges of the quarter hours around the changes of the zones, in different states."""
    if request.param == "counted later":
        update_all(accounts)
    with accounts.transaction() as connection:
        times = [begin + timedelta(minutes=15 * quarter) for begin in BEGINS for quarter in range(12, 24)]
        for number, time in enumerate(time + timedelta(seconds=second) for time in times for second in (0, 899)):
            write(connection, Record(number, 1 + number % 2, "small", number, time, first_token=number / 10))
    if request.param == "summed up":
        update_all(accounts)
    return accounts


def test_intervals_are_those_of_the_zone(edges):
    for zone, interval in product(ZONES, (None, "hour", "day", "month")):
        check(edges, Selection(BEGINS[-1], BEGINS[1] + timedelta(days=2), zone, interval))


def test_a_period_has_its_begin_and_not_its_end(edges):
    seconds = (-1, 0, 1, 420, 899, 900, 901)
    times = [BEGINS[0] + timedelta(hours=4, seconds=second) for second in seconds]
    for start, end in combinations(times, 2):
        check(edges, Selection(start, end))
        check(edges, Selection(start, end, filters={"account_id": ["acct_1"]}))


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
        row = fetch_one(connection, "SELECT sum(input_tokens)::int AS tokens FROM usage_quarters")
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


def test_only_changes_are_read_from_the_records(accounts):
    # Given sums that differ from the records
    with accounts.transaction() as connection:
        write(connection, Record(1, 1, "small", 5, BEGINS[0]))
    update_all(accounts)
    with accounts.connection() as connection:
        connection.execute("UPDATE usage_quarters SET input_tokens = 1000")
        # When a report is read
        (row,) = usage_sums.usage(connection, DAY)
        # Then it has the sums
        assert row["input_tokens"] == 1000
        # And by how much the record has changed since
        write(connection, Record(1, 1, "small", 7, BEGINS[0]))
        (row,) = usage_sums.usage(connection, DAY)
        assert row["input_tokens"] == 1002


def test_a_record_that_changes_twice_between_updates_is_counted_once(accounts):
    update_all(accounts)
    for tokens in (5, 6):
        with accounts.transaction() as connection:
            write(connection, Record(1, 1, "small", tokens, BEGINS[0]))
    check(accounts, DAY)
    update(accounts)
    check(accounts, DAY)


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


COUNT_ROWS = "SELECT count(*)::int AS rows FROM usage_quarters"


def test_an_update_adds_a_row_to_the_group_of_a_late_change_only(accounts):
    # Given sums of a hundred quarter hours
    with accounts.transaction() as connection:
        for number in range(100):
            write(connection, Record(number, 1, "small", 5, BEGINS[0] + timedelta(minutes=15 * number)))
    update_all(accounts)
    # When a record changes
    with accounts.transaction() as connection:
        write(connection, Record(50, 1, "small", 7, BEGINS[0]))
        before = fetch_one(connection, COUNT_ROWS)["rows"]
    # Then one group does
    with accounts.transaction() as connection:
        assert usage_rollups.update(connection) == 1
    with accounts.connection() as connection:
        assert (before, fetch_one(connection, COUNT_ROWS)["rows"]) == (100, 101)
        assert fetch_one(connection, "SELECT count(*)::int AS rows FROM replaced_usage") == {"rows": 0}


def test_the_rows_of_a_group_are_merged_after_its_quarter_hour(accounts):
    # Given three updates within a quarter of an hour
    now = datetime.now(UTC)
    update_all(accounts)
    for number in range(3):
        with accounts.transaction() as connection:
            write(connection, Record(number, 1, "small", 5, now, first_token=1.0))
        update(accounts)
    day = Selection(now - timedelta(days=1), now + timedelta(days=1))
    with accounts.connection() as connection:
        assert fetch_one(connection, COUNT_ROWS)["rows"] == 3
        # When it has passed
        connection.execute("UPDATE usage_records SET created_at = created_at - interval '1 hour'")
        connection.execute("UPDATE usage_quarters SET quarter = quarter - interval '1 hour'")
    update(accounts)
    # Then the group has one row, with the same sums
    with accounts.connection() as connection:
        row = fetch_one(connection, "SELECT merged, jobs, samples FROM usage_quarters")
        assert row == {"merged": True, "jobs": 3, "samples": [3, 3]}
    check(accounts, day)

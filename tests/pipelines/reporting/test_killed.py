"""The reporting worker may be killed at any step: a report has one file of one snapshot, and sums stay exact."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from models.platform.database import fetch_all
from pipelines.reporting import update_rollups
from tests.models.reports.records import Deletion, Record, add_accounts, delete, write
from tests.models.reports.test_usage_sums import DAY, check
from tests.pipelines.killer import Killed, Killer
from tests.pipelines.reporting.report_tables import table
from tests.pipelines.reporting.test_build import content, enqueue, objects, owner, read_report, run

__all__ = ["content", "enqueue", "objects", "owner", "run"]


@pytest.fixture
def killer(monkeypatch):
    return Killer(monkeypatch)


def kill_at(step, killer, work):
    """Do the work of a process that is killed at a step. Returns whether it was."""
    killer.left = step
    try:
        work()
    except Killed:
        return True
    finally:
        killer.left = 0
    return False


FILES = "SELECT id FROM files WHERE account_id = %(account)s"
EVENTS = """
SELECT data ->> 'id' AS id FROM account_events
WHERE account_id = %(account)s AND event_type = 'report.completed'
"""
EMAILS = """
SELECT arguments ->> 'report_id' AS id FROM jobs WHERE kind = 'email.send' AND arguments ->> 'user_id' = %(user)s
"""


def test_a_killed_report_has_one_file_one_event_and_one_email(enqueue, run, settle, killer, database, content, owner):
    snapshots = count(1)

    def attempt_and_end():
        settle(*run(report, lambda connection, request: table(next(snapshots))))  # each attempt reads other rows

    killed, step = True, 0
    while killed:
        step += 1
        # Given a report whose first attempt is killed at a step
        report = enqueue(deliver_to=[owner.user_id])
        killed = kill_at(step, killer, attempt_and_end)
        # When it is repeated, unless it had ended before
        if read_report(database, report).status != "completed":
            attempt_and_end()
        # Then its numbers are those of its file
        completed = read_report(database, report)
        rows = content(completed.file_id)["rows"]
        assert (completed.status, completed.outcome["rows"]) == ("completed", len(rows)), step
    reports = step
    with database.connection() as connection:
        stored, events, emails = (
            [
                row["id"]
                for row in fetch_all(connection, statement, {"user": owner.user_id, "account": owner.account_id})
            ]
            for statement in (FILES, EVENTS, EMAILS)
        )
    assert [len(stored), len(events), len(emails)] == [reports] * 3
    assert len(set(events)) == len(set(emails)) == reports
    assert reports > 15


def update(database):
    """Bring the sums up to date, as an attempt does."""
    update_rollups.update(database)
    while update_rollups.update_next_account(database):
        pass


def change(database, step):
    """Insert, change and delete records, also of an account that has none before, now and long ago."""
    now, late = datetime.now(UTC), DAY.start
    add_accounts(database, [10 + step])
    with database.transaction() as connection:
        for number, created_at in enumerate((now, now - timedelta(hours=1), late)):
            write(connection, Record(100 * step + number, 1, "small", step, created_at, first_token=step))
            write(connection, Record(100 * step + 50 + number, 10 + step, "small", step, created_at))
        write(connection, Record(100 * (step - 1) + 2, 1, "large", 3 * step, late))
        delete(connection, Deletion(100 * (step - 1)))


COUNT = "SELECT sum(jobs)::int AS jobs, sum(input_tokens)::int AS tokens FROM usage_quarters"
EXPECTED = "SELECT count(*)::int AS jobs, sum(input_tokens)::int AS tokens FROM usage_records"


def test_sums_are_exact_after_updates_that_were_killed(empty_database, killer):
    # Given changes of records, and accounts without sums
    add_accounts(empty_database, [1])
    killed, step = True, 0
    while killed:
        step += 1
        change(empty_database, step)
        if step % 3 == 0:  # as after an upgrade or a restore
            with empty_database.connection() as connection:
                connection.execute("UPDATE usage_quarters_state SET counted_accounts = 'acct_12'")
        # When an update is killed at a step
        killed = kill_at(step, killer, lambda: update(empty_database))
        # Then reports are exact, and once it is repeated also the sums
        check(empty_database, DAY)
        for _ in range(2):
            update(empty_database)
            with empty_database.connection() as connection:
                assert fetch_all(connection, COUNT) == fetch_all(connection, EXPECTED), step
        check(empty_database, DAY)
    assert step > 10

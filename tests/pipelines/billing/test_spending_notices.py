"""Admins are notified of spending limits once a month and percentage."""

from decimal import Decimal

import pytest

from models.accounts import accounts
from models.billing import billing_details, spending, spending_notices
from models.jobs.jobs import NewJob
from models.platform.database import fetch_all
from models.platform.ids import new_id
from pipelines.billing import spending_notices as notices

SPEND = """
INSERT INTO spending (account_id, scope, month, slot, amount)
VALUES (%s, %s, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 0, %s)
ON CONFLICT (account_id, month, scope, slot) DO UPDATE SET amount = excluded.amount
"""

EMAILS = """
SELECT arguments ->> 'user_id' AS user_id, arguments ->> 'percent' AS percent FROM jobs
WHERE kind = 'email.send' AND arguments ->> 'limited_account' = %s ORDER BY id
"""


@pytest.fixture
def owner(database):
    """The owner of a new account with a limit of 10."""
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        billing_details.ensure(connection, member.account_id, "EUR")
        spending.set_limit(connection, member.account_id, "", Decimal(10))
    return member


@pytest.fixture
def notify(database, begin):
    """`notify()` runs the job once."""
    return lambda: notices.run(begin(NewJob("spending.notify", "platform")))


def spend(database, account_id, amount, scope=""):
    with database.connection() as connection:
        connection.execute(SPEND, (account_id, scope, amount))


def emails(database, account_id):
    with database.connection() as connection:
        return [(row["user_id"], row["percent"]) for row in fetch_all(connection, EMAILS, (account_id,))]


def test_each_percentage_is_notified_of_once(database, owner, notify):
    expected = []
    for amount, percent in (("7.99", None), ("8", "80"), ("9.99", None), ("10", "100"), ("11", None)):
        spend(database, owner.account_id, amount)
        for _ in range(2):
            notify()
        expected += [(owner.user_id, percent)] if percent else []
        assert emails(database, owner.account_id) == expected


def test_a_changed_limit_notifies_again(database, owner, notify):
    spend(database, owner.account_id, "10")
    notify()

    with database.transaction() as connection:
        spending.set_limit(connection, owner.account_id, "", Decimal(12))
    notify()

    assert [percent for _, percent in emails(database, owner.account_id)] == ["100", "80"]


def test_a_new_month_notifies_again(database, owner, notify):
    spend(database, owner.account_id, "10")
    notify()
    with database.connection() as connection:
        connection.execute("UPDATE spending_limits SET notified_month = '2026-01-01' WHERE account_id = %s",
                           (owner.account_id,))  # fmt: skip

    notify()

    assert len(emails(database, owner.account_id)) == 2


def test_an_attempt_that_stops_before_its_commit_is_made_up(database, owner, notify, monkeypatch):
    spend(database, owner.account_id, "10")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(spending_notices, "admins", stop)
        with pytest.raises(KeyboardInterrupt):
            notify()
    assert emails(database, owner.account_id) == []

    notify()
    assert len(emails(database, owner.account_id)) == 1


def test_limits_are_read_page_by_page(database, owner, notify, monkeypatch):
    monkeypatch.setattr(notices, "BATCH", 1)
    spend(database, owner.account_id, "10")
    with database.transaction() as connection:
        spending.set_limit(connection, owner.account_id, "key:key_1", Decimal(1))
    spend(database, owner.account_id, "1", "key:key_1")

    notify()

    assert len(emails(database, owner.account_id)) == 2


def test_the_notice_is_for_admins_of_the_account_only(database, owner):
    with database.transaction() as connection:
        other = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        notice = spending_notices.notice(connection, owner.account_id, "", owner.user_id)

        assert (notice.key_name, notice.amount, notice.currency) == (None, 10, "EUR")
        assert spending_notices.notice(connection, owner.account_id, "", other.user_id) is None


def test_a_limit_that_is_set_to_the_same_amount_does_not_notify_again(database, owner, notify):
    spend(database, owner.account_id, "10")
    notify()

    with database.transaction() as connection:
        spending.set_limit(connection, owner.account_id, "", Decimal("10.00"))
    notify()

    assert len(emails(database, owner.account_id)) == 1


BETWEEN = {
    "the limit was raised": ("UPDATE spending_limits SET amount = 100 WHERE account_id = %s", []),
    "the limit was raised a little": ("UPDATE spending_limits SET amount = 12 WHERE account_id = %s", ["80"]),
    "the month has ended": (
        "UPDATE spending SET month = month - interval '1 month' WHERE account_id = %s", []),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_what_changes_after_the_limits_were_read_is_respected(database, owner, notify, monkeypatch, name):
    # Given a limit that is reached when the limits are read, and a change after that
    spend(database, owner.account_id, "10")
    change, expected = BETWEEN[name]
    read = spending_notices.page

    def read_and_change(*arguments):
        limits = read(*arguments)
        with database.connection() as connection:
            connection.execute(change, (owner.account_id,))
        return limits

    with monkeypatch.context() as patched:
        patched.setattr(spending_notices, "page", read_and_change)
        notify()

    # Then the notification is of what is true now, and the next one is not suppressed
    assert [percent for _, percent in emails(database, owner.account_id)] == expected
    spend(database, owner.account_id, "200")
    notify()
    assert [percent for _, percent in emails(database, owner.account_id)] == [*expected, "100"]

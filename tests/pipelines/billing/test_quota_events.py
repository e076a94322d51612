"""80 and 100 percent of each quota are an event once in the quota's period."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from models.billing import quota_thresholds, spending
from models.jobs.jobs import NewJob
from models.platform.ids import new_id
from pipelines.billing import quota_events, spending_notices
from tests.pipelines.billing.subscribers import Subscriber

THIS_MONTH = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"

USE_TOKENS = f"""
INSERT INTO quota_usage (account_id, month, slot, tokens) VALUES (%s, {THIS_MONTH}, 3, %s)
ON CONFLICT (account_id, month, slot) DO UPDATE SET tokens = excluded.tokens
"""

SPEND = f"""
INSERT INTO spending (account_id, scope, month, slot, amount) VALUES (%s, %s, {THIS_MONTH}, 0, %s)
ON CONFLICT (account_id, month, scope, slot) DO UPDATE SET amount = excluded.amount
"""


@pytest.fixture
def execute(database):
    """Execute a statement."""

    def execute(statement, *parameters):
        with database.connection() as connection:
            connection.execute(statement, parameters)

    return execute


@pytest.fixture
def limited(account, execute):
    """An account that may use 1,000 tokens in a month."""
    execute("""UPDATE accounts SET limits = '{"tokens_per_month": 1000}' WHERE id = %s""", account)
    return account


@pytest.fixture
def notify(begin):
    """`notify()` runs the job once."""
    return lambda: spending_notices.run(begin(NewJob("spending.notify", "platform")))


@pytest.fixture
def thresholds(events_of):
    """`thresholds(account_id)` → the limits and percentages of the events."""

    def thresholds(account_id):
        events = [data for type, data in events_of(account_id) if type == "quota.threshold"]
        return [(data["limit"], data["percent"]) for data in events]

    return thresholds


def test_each_percentage_of_the_months_tokens_is_one_event(limited, execute, notify, thresholds):
    expected = []
    for tokens, percent in ((799, None), (800, 80), (999, None), (1000, 100), (1500, None)):
        execute(USE_TOKENS, limited, tokens)
        for _ in range(2):
            notify()
        expected += [("tokens_per_month", percent)] if percent else []
        assert thresholds(limited) == expected


def test_the_event_names_the_month(limited, execute, notify, events_of):
    execute(USE_TOKENS, limited, 1000)

    notify()

    first = datetime.now(UTC).replace(day=1).date().isoformat()
    data = {"limit": "tokens_per_month", "percent": 100, "scope": "", "period_start": first}
    assert events_of(limited) == [("quota.threshold", data)]


def test_a_new_month_has_events_again(limited, execute, notify, thresholds):
    # Given an account that was notified in an earlier month
    execute("""UPDATE accounts SET notified_quotas = '{"tokens_per_month": {"period": "2026-01-01", "percent": 100}}'
               WHERE id = %s""", limited)  # fmt: skip
    execute(USE_TOKENS, limited, 900)

    notify()

    assert thresholds(limited) == [("tokens_per_month", 80)]


def test_an_account_without_a_limit_has_no_event(account, execute, notify, thresholds):
    execute(USE_TOKENS, account, 10**12)

    notify()

    assert thresholds(account) == []


def test_an_attempt_that_stops_before_its_commit_is_made_up(limited, execute, notify, thresholds, monkeypatch):
    execute(USE_TOKENS, limited, 1000)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(quota_events, "_record_use", stop)
        with pytest.raises(KeyboardInterrupt):
            notify()
    assert thresholds(limited) == []

    notify()
    assert thresholds(limited) == [("tokens_per_month", 100)]


def test_accounts_are_read_page_by_page(database, limited, execute, notify, thresholds, monkeypatch):
    monkeypatch.setattr(quota_events, "BATCH", 1)
    execute(USE_TOKENS, limited, 1000)
    execute("DELETE FROM accounts WHERE id = %s", new_id("acct"))

    notify()

    assert thresholds(limited) == [("tokens_per_month", 100)]


def test_what_the_plan_includes_and_limits_has_events(
    database, gateways, begin, settle, customer, execute, notify, thresholds
):
    # Given a plan that includes usage of 10, and limits it to 20 a month
    subscriber = Subscriber(database, gateways, begin, settle, customer)
    subscriber.subscribe(subscriber.plan(included_amount=Decimal(10), spending_limit=Decimal(20)))
    execute("UPDATE accounts SET billed_since = now() WHERE id = %s", customer)
    expected = []
    # When more and more of it is used
    for amount, reached in (
        ("7.99", []),
        ("8", [("included_usage", 80)]),
        ("12", [("included_usage", 100)]),
        ("16", [("spending", 80)]),
        ("21", [("spending", 100)]),
    ):
        execute(SPEND, customer, "", Decimal(amount))
        notify()
        notify()
        # Then each percentage is one event
        expected += reached
        assert thresholds(customer) == expected


def test_the_limit_that_an_account_has_set_has_an_event_with_its_scope(database, customer, execute, notify, events_of):
    with database.transaction() as connection:
        spending.set_limit(connection, customer, "key:key_1", Decimal(10))
    execute(SPEND, customer, "key:key_1", Decimal(9))

    notify()
    notify()

    ((type, data),) = events_of(customer)
    assert type == "quota.threshold"
    assert (data["limit"], data["scope"], data["percent"]) == ("spending_limit", "key:key_1", 80)


def test_a_page_selects_only_accounts_with_something_new(database, limited, execute):
    execute(USE_TOKENS, limited, 1000)

    def selected():
        with database.transaction() as connection:
            found = {each.account_id: each.may_have_reached for each in quota_thresholds.page(connection, "", 100_000)}
            quota_thresholds.mark(connection, limited)
        return found[limited]

    assert [selected(), selected()] == [True, False]

"""An event is recorded with a delivery and a job for each endpoint that asks for it."""

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from models.delivery import deliveries, endpoints, events
from models.jobs.catalogue import CATALOGUE
from models.platform.database import fetch_all, fetch_one
from models.platform.ids import new_id


@pytest.fixture
def add_endpoint(database, account):
    def add(*event_types, account_id=account):
        with database.connection() as connection:
            return endpoints.insert(
                connection, new_id("we"), account_id, url="https://example.com/", event_types=event_types,
                name="", description="", metadata={}, secret="sealed", secret_hint="", created_by=None,
            )  # fmt: skip

    return add


@pytest.fixture
def record(database, account):
    def record(type, data=None, **options):
        with database.transaction() as connection:
            events.record(connection, options.pop("account_id", account), type, data or {"id": "resp_1"}, **options)

    return record


@pytest.fixture
def deliveries_of(database, account):
    def read(endpoint, **options):
        with database.connection() as connection:
            return deliveries.page(connection, account, endpoint_id=endpoint.id, **options)

    return read


def job_of(database, delivery):
    with database.connection() as connection:
        return fetch_one(
            connection,
            "SELECT account_id, kind, queue, lane, state, arguments, priority FROM jobs WHERE id = %s",
            (delivery.delivery_job_id,),
        )


@pytest.mark.parametrize("pattern", ["*", "response.*", "response.completed"])
def test_an_event_becomes_a_delivery_and_its_job(database, account, add_endpoint, record, deliveries_of, pattern):
    # Given an endpoint that asks for the type
    endpoint = add_endpoint("batch.*", pattern)
    # When the event is recorded
    record("response.completed")
    # Then there is a pending delivery, and a queued job in the endpoint's lane that does not count for the account
    (delivery,) = deliveries_of(endpoint)
    assert (delivery.delivery_state, delivery.event_type, delivery.tries) == ("pending", "response.completed", 0)
    kind = CATALOGUE["webhook.deliver"]
    assert job_of(database, delivery) == {
        "account_id": "platform", "kind": "webhook.deliver", "queue": "webhooks", "lane": endpoint.id,
        "state": "queued", "arguments": {"delivery_id": delivery.id, "account_id": account},
        "priority": kind.priority,
    }  # fmt: skip


@pytest.mark.parametrize("pattern", ["response.failed", "batch.*", "response", "responses.*", "completed"])
def test_an_endpoint_gets_only_what_it_asks_for(add_endpoint, record, deliveries_of, pattern):
    endpoint = add_endpoint(pattern)
    record("response.completed")
    assert deliveries_of(endpoint) == []


def test_other_accounts_and_disabled_endpoints_get_nothing(database, account, add_endpoint, record, deliveries_of):
    # Given a disabled endpoint, and one of another account
    disabled = add_endpoint("*")
    other = new_id("acct")
    with database.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'other')", (other,))
        endpoints.disable(connection, disabled.id, account, "requested")
    theirs = add_endpoint("*", account_id=other)
    # When an event is recorded
    record("response.completed")
    # Then neither gets it
    assert deliveries_of(disabled) == []
    with database.connection() as connection:
        assert deliveries.page(connection, other, endpoint_id=theirs.id) == []
        assert events.page(connection, other) == []


def test_a_second_event_with_the_key_is_ignored(database, account, add_endpoint, record, deliveries_of):
    endpoint = add_endpoint("*")
    for _ in range(2):
        record("payment.succeeded", key="pay_1")
    record("payment.failed", key="pay_1")
    assert sorted(delivery.event_type for delivery in deliveries_of(endpoint)) == [
        "payment.failed",
        "payment.succeeded",
    ]


def test_what_is_rolled_back_is_not_an_event(database, account, add_endpoint, deliveries_of):
    # Given an endpoint
    endpoint = add_endpoint("*")
    # When the transaction of an event fails
    with suppress(RuntimeError), database.transaction() as connection:
        events.record(connection, account, "file.created", {"id": "file_1"})
        raise RuntimeError
    # Then there is neither event nor delivery
    assert deliveries_of(endpoint) == []


def test_the_jobs_of_a_failing_endpoint_wait_apart(database, account, add_endpoint, record, deliveries_of):
    # Given an endpoint that fails
    endpoint = add_endpoint("*")
    with database.connection() as connection:
        endpoints.note_failure(connection, endpoint.id)
    # When an event is recorded
    record("file.created")
    # Then its job is in the queue of retries
    assert job_of(database, deliveries_of(endpoint)[0])["queue"] == "webhooks_batch"


@pytest.mark.parametrize("context", ["transaction", "batch", "connection"])
def test_the_relay_is_nudged_after_the_commit(database, account, add_endpoint, monkeypatch, context):
    # Given a relay, and two endpoints of which one asks for the type
    nudged = []
    monkeypatch.setattr(database, "nudge", lambda *lanes: nudged.extend(lanes))
    endpoint = add_endpoint("file.*")
    add_endpoint("batch.*")
    # When an event is recorded, without waiting for a result
    with getattr(database, context)() as connection:
        events.record(connection, account, "file.created", {"id": "file_1"})
        assert nudged == []
    # Then the lane is published once the transaction has ended
    assert nudged == [endpoint.id]


def test_a_failed_transaction_nudges_nothing(database, account, add_endpoint, monkeypatch):
    nudged = []
    monkeypatch.setattr(database, "nudge", lambda *lanes: nudged.extend(lanes))
    add_endpoint("*")
    with suppress(RuntimeError), database.batch() as connection:
        events.record(connection, account, "file.created", {"id": "file_1"})
        raise RuntimeError
    with database.connection() as connection:
        connection.execute("SELECT 1")
    assert nudged == []


def test_an_endpoint_that_is_being_deleted_fails_no_transaction(database, account, add_endpoint, deliveries_of):
    # Given a transaction that has deleted an endpoint and not ended yet
    endpoint = add_endpoint("*")
    begun = threading.Event()

    def record():
        with database.transaction() as connection:
            connection.execute("SELECT 1")
            begun.set()
            events.record(connection, account, "file.created", {"id": "file_1"})

    thread = threading.Thread(target=record)
    with database.transaction() as connection:
        endpoints.delete(connection, endpoint.id, account)
        # When an event is recorded meanwhile
        thread.start()
        begun.wait(5)
    thread.join(10)
    # Then the event exists, without a delivery
    with database.connection() as connection:
        assert [event.event_type for event in events.page(connection, account)] == ["file.created"]
    assert deliveries_of(endpoint) == []


def test_a_poller_sees_events_of_late_commits_after_the_last_one(database, account, record):
    # Given an event whose transaction is open, and a later one that is committed
    with database.transaction() as connection:
        events.record(connection, account, "first.begun", {"id": "1"})
        record("second.committed")
        # Then a poller sees none of them: it would go on after the second one, and never see the first
        with database.connection() as other:
            assert events.page(other, account, oldest_first=True) == []
    # When the transaction has ended
    with database.connection() as connection:
        page = events.page(connection, account, oldest_first=True)
        # Then the poller sees both, and continues after each
        assert [event.event_type for event in page] == ["first.begun", "second.committed"]
        rest = events.page(connection, account, oldest_first=True, after=page[0].id)
        assert [event.event_type for event in rest] == ["second.committed"]
        assert events.page(connection, account, after=page[0].id) == []


def test_events_are_found_by_pattern_and_time(database, account, record):
    for type in ("a.b", "a.c", "a_b.c"):
        record(type)
    with database.connection() as connection:
        assert [event.event_type for event in events.page(connection, account, patterns=["a.*"])] == ["a.c", "a.b"]
        assert [event.event_type for event in events.page(connection, account, patterns=["a_b.*", "a.b"])] == [
            "a_b.c", "a.b"]  # fmt: skip
        assert events.page(connection, account, since=datetime.now(UTC) + timedelta(hours=1)) == []


def test_old_events_are_deleted_with_their_deliveries(database, account, add_endpoint, record, deliveries_of):
    # Given an old event and a new one
    endpoint = add_endpoint("*")
    record("old.one")
    with database.connection() as connection:
        connection.execute(
            "UPDATE account_events SET created_at = created_at - interval '31 days' WHERE account_id = %s", (account,)
        )
    record("new.one")
    # When events are pruned
    with database.connection() as connection:
        while events.prune(connection, 500):
            pass
    # Then the new one is left
    assert [delivery.event_type for delivery in deliveries_of(endpoint)] == ["new.one"]


def test_events_of_a_restored_dump_come_first(database, account, record):
    # Given an event that another server's transaction has recorded
    record("restored.one")
    record("new.one")
    with database.connection() as connection:
        connection.execute(
            "UPDATE account_events SET recorded_in = '9000000000'"
            " WHERE account_id = %s AND event_type = 'restored.one'",
            (account,),
        )
        assert [event.event_type for event in events.page(connection, account)] == ["new.one"]
        # When it is put in order
        while events.reorder_restored(connection, 500):
            pass
        # Then it is listed, before the others
        assert [event.event_type for event in events.page(connection, account)] == ["new.one", "restored.one"]


def test_each_event_has_a_delivery_of_its_own_id(database, account, add_endpoint, record, deliveries_of):
    first, second = add_endpoint("*"), add_endpoint("*")
    for _ in range(3):
        record("file.created")
    found = [*deliveries_of(first), *deliveries_of(second)]
    assert len({delivery.id for delivery in found}) == len({delivery.delivery_job_id for delivery in found}) == 6
    assert {len(delivery.id) for delivery in found} == {len(new_id("whd"))}
    with database.connection() as connection:
        rows = fetch_all(connection, "SELECT id FROM jobs WHERE lane = ANY(%s)", ([first.id, second.id],))
    assert {len(row["id"]) for row in rows} == {len(new_id("job"))}

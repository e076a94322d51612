"""The relay publishes each due job, also after a crash or a broker outage."""

import time

import dramatiq
import pytest

from bench.harness.waiting import wait_until
from models.jobs import outbox
from models.jobs.jobs import NewJob, enqueue
from models.jobs.workers import register
from models.platform.errors import Unavailable
from tasks.publishing import PublishResult
from tasks.relay import Relay
from tests.tasks.conftest import broker_with_queue

QUEUE = "test"


@pytest.fixture
def broker(on_each_broker, kinds):
    with broker_with_queue(on_each_broker, QUEUE) as broker:
        yield broker


@pytest.fixture
def relay(job_store, broker):
    """A relay whose thread is started by the test."""
    relay = Relay(job_store.database, broker)
    yield relay
    if relay._thread.is_alive():
        relay.stop()


@pytest.fixture
def deliveries(broker):
    """`deliveries(n)` → the next n messages, acknowledged."""
    consumer = broker.consume(QUEUE, prefetch=50, timeout=200)

    def receive(count):
        messages = []
        while len(messages) < count:
            message = wait_until(lambda: next(consumer))
            consumer.ack(message)
            messages.append(message)
        assert next(consumer) is None
        return messages

    yield receive
    consumer.close()


def jobs_of(messages):
    return [message.args[0] for message in messages]


def test_due_jobs_are_published_and_marked(job_store, account, relay, deliveries):
    job_ids = [job_store.enqueue(account) for _ in range(3)]

    assert relay.publish_all() == 3

    assert jobs_of(deliveries(3)) == job_ids
    assert all(job_store.job(job_id).published_at for job_id in job_ids)
    assert relay.publish_all() == 0


class Crash(Exception):
    """Raised in place of the death of the relay's process."""


def test_crash_between_message_and_mark_sends_twice_and_the_job_is_claimed_once(
    job_store, account, relay, deliveries, monkeypatch
):
    job_id = job_store.enqueue(account)

    def crash(connection, sent):
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "mark_published", crash)
        with pytest.raises(Crash):
            relay.publish_all()
    assert relay.publish_all() == 1

    messages = deliveries(2)
    assert jobs_of(messages) == [job_id, job_id]
    claims = [job_store.claim(job_id, message.message_id, f"w{n}") for n, message in enumerate(messages)]
    assert [claim is not None for claim in claims] == [True, False]


def test_connection_is_idle_in_transaction_while_the_relay_publishes(job_store, account, relay, broker, monkeypatch):
    """Postgres can then end the transaction of a frozen relay, and with it the lock that other relays wait for."""
    states, publish_batch = [], broker.publish_batch
    holders = """
        SELECT state FROM pg_stat_activity JOIN pg_locks USING (pid)
        WHERE locktype = 'advisory' AND datname = current_database()
    """

    def record_states(messages):
        with job_store.database.connection() as connection:
            states.extend(row["state"] for row in connection.execute(holders).fetchall())
        return publish_batch(messages)

    monkeypatch.setattr(broker, "publish_batch", record_states)
    job_store.enqueue(account)
    relay.publish_all()

    assert states == ["idle in transaction"]


def test_messages_confirmed_before_a_broker_error_are_not_sent_again(
    job_store, account, relay, deliveries, broker, monkeypatch
):
    job_ids = [job_store.enqueue(account) for _ in range(4)]
    publish_batch = broker.publish_batch

    def fail_third(messages):
        confirmed = publish_batch(messages[:2]).confirmed
        return PublishResult(confirmed, dramatiq.errors.ConnectionClosed("down"))

    with monkeypatch.context() as patched:
        patched.setattr(broker, "publish_batch", fail_third)
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            relay.publish_all()
    assert [bool(job_store.job(job_id).published_at) for job_id in job_ids] == [True, True, False, False]
    assert relay.publish_all() == 2

    assert jobs_of(deliveries(4)) == job_ids


@pytest.mark.parametrize(
    "error", [dramatiq.errors.ConnectionClosed("down"), Unavailable("down"), OSError("down"), KeyError("what?")]
)
def test_relay_retries_after_an_error(job_store, account, relay, deliveries, broker, monkeypatch, error):
    failures, publish_batch = [], broker.publish_batch

    def fail_twice(messages):
        if len(failures) < 2:
            failures.append(messages)
            raise error
        return publish_batch(messages)

    monkeypatch.setattr(broker, "publish_batch", fail_twice)
    job_id = job_store.enqueue(account)
    relay.start()

    relay.nudge()

    assert jobs_of(deliveries(1)) == [job_id]
    assert len(failures) == 2


def test_nudge_publishes_at_once(job_store, account, relay):
    relay.start()
    first = job_store.enqueue(account)
    relay.nudge(account)
    wait_until(lambda: job_store.job(first).published_at)
    delays = []
    for _ in range(3):
        job_id = job_store.enqueue(account)
        start = time.monotonic()
        relay.nudge(account)
        wait_until(lambda job_id=job_id: job_store.job(job_id).published_at)
        delays.append(time.monotonic() - start)

    assert min(delays) < 2  # without the nudge it looks every five seconds


def test_what_a_transaction_inserts_for_the_relay_is_published_after_its_commit(job_store, account, relay):
    # Given a relay that runs, and a transaction that inserts a job and asks for its publication
    relay.start()
    job = NewJob("test.work", account)
    with job_store.database.transaction() as connection:
        enqueue(connection, job)
        lane = connection.execute("SELECT account_id AS lane FROM jobs WHERE id = %s", (job.id,))
        connection.nudge_after_commit(lane)
    # When it has committed, then the job is published
    wait_until(lambda: job_store.job(job.id).published_at)


def test_nudge_without_lanes_publishes_those_of_all(job_store, relay):
    relay.start()
    job_ids = [job_store.enqueue(job_store.create_account()) for _ in range(8)]

    relay.nudge()

    wait_until(lambda: all(job_store.job(job_id).published_at for job_id in job_ids))


def test_relay_with_an_interval_needs_no_nudge(job_store, account, broker):
    relay = Relay(job_store.database, broker, interval=0.05).start()
    job_id = job_store.enqueue(account)

    wait_until(lambda: job_store.job(job_id).published_at)
    relay.stop()


def test_one_nudge_publishes_more_than_a_batch(job_store, relay):
    with job_store.database.connection() as connection:
        register(connection, "w", host="h", pid=1, pools=[], threads={QUEUE: 100})
    account = job_store.create_account()
    job_ids = [job_store.enqueue(account) for _ in range(outbox.BATCH + 10)]
    relay.start()

    relay.nudge(account)

    wait_until(lambda: all(job_store.job(job_id).published_at for job_id in job_ids))

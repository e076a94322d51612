"""Given rows that are due, when the relay is nudged, then there is a message for each, whatever dies in between."""

import time

import dramatiq
import pytest

from models.jobs import outbox
from models.jobs.workers import register
from models.platform.errors import Unavailable
from tasks.relay import Relay
from tests.tasks.conftest import with_queue
from tests.waiting import eventually

QUEUE = "test"


@pytest.fixture
def broker(on_each_broker, kinds):
    with with_queue(on_each_broker, QUEUE) as broker:
        yield broker


@pytest.fixture
def relay(desk, broker):
    """A relay whose thread runs only where a test starts it."""
    relay = Relay(desk.database, broker)
    yield relay
    if relay._thread.is_alive():
        relay.stop()


@pytest.fixture
def deliveries(broker):
    """`deliveries(n)` → the next n messages, acknowledged."""
    consumer = broker.consume(QUEUE, prefetch=50, timeout=200)

    def take(count):
        taken = []
        while len(taken) < count:
            message = eventually(lambda: next(consumer))
            consumer.ack(message)
            taken.append(message)
        assert next(consumer) is None
        return taken

    yield take
    consumer.close()


def jobs_of(messages):
    return [message.args[0] for message in messages]


def test_what_is_due_is_published_and_marked(desk, account, relay, deliveries):
    born = [desk.enqueue(account) for _ in range(3)]

    assert relay.publish_due() == 3

    assert jobs_of(deliveries(3)) == born
    assert all(desk.job(job_id).published_at for job_id in born)
    assert relay.publish_due() == 0


class Crash(Exception):
    """The relay's process dies."""


def test_a_crash_between_message_and_mark_sends_twice_and_is_claimed_once(
    desk, account, relay, deliveries, monkeypatch
):
    job_id = desk.enqueue(account)

    def die(connection, sent):
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "mark_published", die)
        with pytest.raises(Crash):
            relay.publish_due()
    assert relay.publish_due() == 1

    messages = deliveries(2)
    assert jobs_of(messages) == [job_id, job_id]
    claims = [desk.claim(job_id, message.message_id, f"w{n}") for n, message in enumerate(messages)]
    assert [claim is not None for claim in claims] == [True, False]


def test_a_relay_that_is_frozen_while_it_sends_looks_idle_to_postgres(desk, account, relay, broker, monkeypatch):
    """So that Postgres ends its transaction, and with it the lock that all other relays wait for."""
    seen, enqueue = [], broker.enqueue
    holders = """
        SELECT state FROM pg_stat_activity JOIN pg_locks USING (pid)
        WHERE locktype = 'advisory' AND datname = current_database()
    """

    def look(message):
        with desk.database.connection() as connection:
            seen.extend(row["state"] for row in connection.execute(holders).fetchall())
        return enqueue(message)

    monkeypatch.setattr(broker, "enqueue", look)
    desk.enqueue(account)
    relay.publish_due()

    assert seen == ["idle in transaction"]


def test_what_a_failing_broker_has_taken_is_not_sent_again(desk, account, relay, deliveries, broker, monkeypatch):
    born = [desk.enqueue(account) for _ in range(4)]
    enqueue, sent = broker.enqueue, []

    def fail_third(message):
        if len(sent) == 2:
            raise dramatiq.errors.ConnectionClosed("down")
        sent.append(message)
        return enqueue(message)

    with monkeypatch.context() as patched:
        patched.setattr(broker, "enqueue", fail_third)
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            relay.publish_due()
    assert [bool(desk.job(job_id).published_at) for job_id in born] == [True, True, False, False]
    assert relay.publish_due() == 2

    assert jobs_of(deliveries(4)) == born


@pytest.mark.parametrize(
    "error", [dramatiq.errors.ConnectionClosed("down"), Unavailable("down"), OSError("down"), KeyError("what?")]
)
def test_a_relay_keeps_trying(desk, account, relay, deliveries, broker, monkeypatch, error):
    failures, enqueue = [], broker.enqueue

    def fail_at_first(message):
        if len(failures) < 2:
            failures.append(message)
            raise error
        return enqueue(message)

    monkeypatch.setattr(broker, "enqueue", fail_at_first)
    job_id = desk.enqueue(account)
    relay.start()

    relay.nudge()

    assert jobs_of(deliveries(1)) == [job_id]
    assert len(failures) == 2


def test_a_nudge_is_heard_at_once_and_a_relay_sleeps_without_one(desk, account, relay):
    relay.start()
    first = desk.enqueue(account)
    relay.nudge()
    eventually(lambda: desk.job(first).published_at)
    delays = []
    for _ in range(3):
        job_id = desk.enqueue(account)
        began = time.monotonic()
        relay.nudge()
        eventually(lambda job_id=job_id: desk.job(job_id).published_at)
        delays.append(time.monotonic() - began)

    assert min(delays) < 0.1


def test_a_sweepers_relay_needs_no_nudge(desk, account, broker):
    relay = Relay(desk.database, broker, interval=0.05).start()
    job_id = desk.enqueue(account)

    eventually(lambda: desk.job(job_id).published_at)
    relay.stop()


def test_more_than_a_batch_goes_in_one_nudge(desk, relay):
    with desk.database.connection() as connection:
        register(connection, "w", host="h", pid=1, pools=[], queues=[QUEUE], threads=100)
    account = desk.account()
    born = [desk.enqueue(account) for _ in range(outbox.BATCH + 10)]
    relay.start()

    relay.nudge()

    eventually(lambda: all(desk.job(job_id).published_at for job_id in born))

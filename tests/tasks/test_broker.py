"""Both brokers deliver each message to one worker, at once."""

import threading
import time
from urllib.parse import urlsplit

import dramatiq
import pika
import pytest
import redis

from bench.chaos.proxy import Links
from bench.harness.waiting import wait_until
from models.jobs.catalogue import CATALOGUE, JobKind
from models.platform.errors import ConfigurationError, Unavailable
from models.platform.ids import new_id
from tasks.broker import build_broker, job_message
from tasks.rabbitmq import DELIVERY_LIMIT, QuorumBroker
from tests.tasks.conftest import broker_with_queue

QUEUE = "test_broker"


@pytest.fixture
def broker(on_each_broker, monkeypatch):
    """Each broker in turn, with a queue of the test's own."""
    monkeypatch.setitem(CATALOGUE, "test.received", JobKind(queue=QUEUE))
    with broker_with_queue(on_each_broker, QUEUE) as broker:
        yield broker


@pytest.fixture
def start_worker(broker):
    """`start_worker(actor)` → a worker of two threads that serves the queue."""
    workers = []

    def start(actor, threads=2):
        if "test.received" not in broker.actors:
            dramatiq.actor(actor, actor_name="test.received", queue_name=QUEUE, broker=broker)
        worker = dramatiq.Worker(broker, queues={QUEUE}, worker_threads=threads, worker_timeout=500)
        worker.queue_prefetch = threads
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop(timeout=5000)


def test_each_message_is_delivered_once(broker, start_worker):
    received = []
    start_worker(received.append)
    for n in range(100):
        broker.enqueue(job_message(QUEUE, "test.received", f"job_{n}"))

    wait_until(lambda: len(received) >= 100)

    assert sorted(received) == sorted(f"job_{n}" for n in range(100))


def test_only_the_age_of_a_broker_that_may_lose_messages_matters(broker):
    age = broker.age()

    assert age is None if isinstance(broker, QuorumBroker) else 0 <= age < time.monotonic()


def test_batch_is_published_as_a_whole(broker, start_worker):
    received = []
    batch = [job_message(QUEUE, "test.received", f"job_{n}") for n in range(200)]

    result = broker.publish_batch(batch)

    assert (list(result.confirmed), result.error) == (batch, None)
    start_worker(received.append)
    wait_until(lambda: len(received) >= 200)
    assert sorted(received) == sorted(message.args[0] for message in batch)


def test_batch_wakes_idle_workers(broker, start_worker):
    received, both = [], threading.Barrier(2)

    def receive(job_id):
        both.wait(20)
        received.append(job_id)

    start_worker(receive)

    broker.publish_batch([job_message(QUEUE, "test.received", f"job_{n}") for n in range(2)])

    wait_until(lambda: sorted(received) == ["job_0", "job_1"])


@pytest.mark.parametrize("url", ["amqp://a:b@127.0.0.1:1/", "unix:///nowhere/valkey.sock"])
def test_batch_without_a_server_is_an_error_without_confirms(url):
    broker = build_broker(url)

    result = broker.publish_batch([job_message("memory", "memory.change", "job_1")])

    assert list(result.confirmed) == []
    assert isinstance(result.error, dramatiq.errors.ConnectionClosed | redis.ConnectionError)


def test_batch_of_the_redis_broker_reports_refused_messages(settings):
    broker = build_broker(settings.broker_address)
    limit = broker.client.config_get("maxmemory")["maxmemory"]
    broker.client.config_set("maxmemory", 1)
    try:
        result = broker.publish_batch([job_message("memory", "memory.change", "job_1")])
    finally:
        broker.client.config_set("maxmemory", limit)
        broker.close()

    assert list(result.confirmed) == []
    assert isinstance(result.error, redis.OutOfMemoryError)


def test_idle_worker_receives_a_message_at_once(broker, start_worker):
    received = threading.Event()
    start_worker(lambda job_id: received.set())
    broker.enqueue(job_message(QUEUE, "test.received", "to warm up"))
    assert received.wait(20)

    delays = []
    for n in range(20):
        received.clear()
        start = time.monotonic()
        broker.enqueue(job_message(QUEUE, "test.received", f"job_{n}"))
        assert received.wait(20)
        delays.append(time.monotonic() - start)

    assert sorted(delays)[10] < 0.1  # a few milliseconds; the bound allows for a busy machine


def test_message_carries_only_the_job_id(broker):
    message = job_message(QUEUE, "test.received", "job_1")

    assert (message.args, message.kwargs, message.options) == (("job_1",), {}, {})
    assert message.actor_name == "test.received"


def test_unacknowledged_message_is_delivered_to_another_worker(broker, start_worker):
    """It keeps its message id, by which a claim recognises that the first delivery is over."""
    received, consumer = [], broker.consume(QUEUE, prefetch=1, timeout=500)
    sent = broker.enqueue(job_message(QUEUE, "test.received", "job_1"))
    first = wait_until(lambda: next(consumer))
    assert first.message_id == sent.message_id

    consumer.requeue([first])
    consumer.close()
    start_worker(received.append)

    wait_until(lambda: received == ["job_1"])


def test_no_delay_queue_is_declared(broker, start_worker):
    start_worker(lambda job_id: None)

    assert broker.get_declared_delay_queues() == set()
    assert not {queue for queue in broker.get_declared_queues() if queue.endswith(".DQ")}


def test_check_and_keep_alive_succeed(broker):
    broker.check()
    broker.keep_alive()


@pytest.mark.parametrize("url", ["amqp://a:b@127.0.0.1:1/", "unix:///nowhere/valkey.sock"])
def test_check_raises_unavailable_without_a_server(url):
    with pytest.raises(Unavailable):
        build_broker(url).check()


def test_message_of_a_lost_connection_is_not_acknowledged_on_the_next_one(rabbitmq_url):
    """Its delivery tag means another message there; it is delivered again."""
    parts = urlsplit(rabbitmq_url)
    with Links() as links:
        link = links.open("worker-rabbitmq", (parts.hostname, parts.port))
        broker = build_broker(f"amqp://{parts.username}:{parts.password}@127.0.0.1:{link.port}{parts.path}")
        broker.enqueue(job_message("memory", "memory.change", new_id("job")))
        consumer = broker.consume("memory", timeout=1000)
        message = wait_until(lambda: next(consumer))

        link.cut()
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            wait_until(lambda: next(consumer))
        consumer.ack(message)

        second_consumer = broker.consume("memory", timeout=1000)
        redelivered = wait_until(lambda: next(second_consumer))
        second_consumer.ack(message)
        assert (redelivered.message_id, redelivered._tag) == (message.message_id, message._tag)
        assert second_consumer.known_tags == {redelivered._tag}
        second_consumer.ack(redelivered)
        second_consumer.close()
        broker.close()


def test_publishing_without_a_server_raises_connection_closed():
    broker = build_broker("amqp://127.0.0.1:1/")

    with pytest.raises(dramatiq.errors.ConnectionClosed):
        broker.enqueue(job_message("memory", "memory.change", "job_1"))


@pytest.mark.parametrize("url", ["amqp://guest@host/", "amqp://a:b@host:port/"])
def test_incomplete_url_raises_an_error_that_names_the_setting(url):
    with pytest.raises(ConfigurationError, match="SANGHA_BROKER_URL"):
        build_broker(url)


def test_rabbitmq_queues_are_quorum_queues_with_a_delivery_limit(rabbitmq_url):
    broker = build_broker(rabbitmq_url)
    queue = CATALOGUE["turn.run"].queue
    broker.declare_queue(queue, ensure=True)
    assert broker.confirm_delivery
    broker.close()

    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(
            queue,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": f"{queue}.XQ",
            },
        )  # the server refuses a declaration that differs
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
            connection.channel().queue_declare(f"{queue}.DQ", passive=True)


def test_consumer_with_a_used_prefetch_receives_nothing_until_it_acknowledges(broker):
    """Prefetch is one message per thread; other workers get the rest."""
    sent = [broker.enqueue(job_message(QUEUE, "test.received", f"job_{n}")).message_id for n in range(2)]
    one, two = (broker.consume(QUEUE, prefetch=1, timeout=200) for _ in range(2))

    first, second = wait_until(lambda: next(one)), wait_until(lambda: next(two))

    assert {first.message_id, second.message_id} == set(sent)
    assert next(one) is None
    one.ack(first)
    two.ack(second)
    assert next(one) is None
    one.close()
    two.close()


def test_consumer_with_a_used_prefetch_sends_heartbeats(settings):
    """After a minute without one, its messages are given to other workers while it processes them."""
    broker = build_broker(settings.broker_address)
    broker.flush_all()
    consumer = broker.consume("inference", prefetch=1, timeout=20)
    broker.enqueue(job_message("inference", "turn.run", "job_1"))
    assert next(message for message in consumer if message) is not None

    def last_heartbeat():
        return broker.client.zscore("sangha:queue:__heartbeats__", broker.broker_id)

    before = last_heartbeat()
    wait_until(lambda: next(consumer) is None and last_heartbeat() > before)
    broker.flush_all()
    broker.close()

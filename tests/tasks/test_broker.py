"""Given a broker, RabbitMQ or the embedded default's, when a nudge is sent, then one worker gets it, and at once."""

import threading
import time
from urllib.parse import urlsplit

import dramatiq
import pika
import pytest

from bench.chaos.proxy import Links
from models.jobs.catalogue import CATALOGUE, Kind
from models.platform.errors import ConfigurationError, Unavailable
from models.platform.ids import new_id
from tasks.broker import build_broker, job_message
from tasks.rabbitmq import DELIVERY_LIMIT
from tests.tasks.conftest import with_queue
from tests.waiting import eventually

QUEUE = "test_broker"


@pytest.fixture
def broker(on_each_broker, monkeypatch):
    """Each broker in turn, with a queue of the test's own."""
    monkeypatch.setitem(CATALOGUE, "test.heard", Kind(queue=QUEUE))
    with with_queue(on_each_broker, QUEUE) as broker:
        yield broker


@pytest.fixture
def listening(broker):
    """`listening(actor)` → a worker of two threads that serves the queue."""
    workers = []

    def start(actor, threads=2):
        if "test.heard" not in broker.actors:
            dramatiq.actor(actor, actor_name="test.heard", queue_name=QUEUE, broker=broker)
        worker = dramatiq.Worker(broker, queues={QUEUE}, worker_threads=threads, worker_timeout=500)
        worker.queue_prefetch = threads
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop(timeout=5000)


def test_messages_reach_a_worker_each_once(broker, listening):
    heard = []
    listening(heard.append)
    for n in range(100):
        broker.enqueue(job_message(QUEUE, "test.heard", f"job_{n}"))

    eventually(lambda: len(heard) >= 100)

    assert sorted(heard) == sorted(f"job_{n}" for n in range(100))


def test_an_idle_worker_hears_at_once(broker, listening):
    heard = threading.Event()
    listening(lambda job_id: heard.set())
    broker.enqueue(job_message(QUEUE, "test.heard", "to warm up"))
    assert heard.wait(20)

    delays = []
    for n in range(20):
        heard.clear()
        began = time.monotonic()
        broker.enqueue(job_message(QUEUE, "test.heard", f"job_{n}"))
        assert heard.wait(20)
        delays.append(time.monotonic() - began)

    assert sorted(delays)[10] < 0.1  # a few milliseconds; the bound is for a machine that does much else


def test_a_message_carries_the_id_and_nothing_else(broker):
    message = job_message(QUEUE, "test.heard", "job_1")

    assert (message.args, message.kwargs, message.options) == (("job_1",), {}, {})
    assert message.actor_name == "test.heard"


def test_what_a_worker_leaves_undone_another_gets(broker, listening):
    """With its very message id, by which a claim knows that the first one is gone."""
    heard, consumer = [], broker.consume(QUEUE, prefetch=1, timeout=500)
    sent = broker.enqueue(job_message(QUEUE, "test.heard", "job_1"))
    first = eventually(lambda: next(consumer))
    assert first.message_id == sent.message_id

    consumer.requeue([first])
    consumer.close()
    listening(heard.append)

    eventually(lambda: heard == ["job_1"])


def test_no_broker_has_a_delay_queue(broker, listening):
    listening(lambda job_id: None)

    assert broker.get_declared_delay_queues() == set()
    assert not {queue for queue in broker.get_declared_queues() if queue.endswith(".DQ")}


def test_a_broker_answers_when_asked(broker):
    broker.check()
    broker.keep_alive()


@pytest.mark.parametrize("url", ["amqp://a:b@127.0.0.1:1/", "unix:///nowhere/valkey.sock"])
def test_one_that_is_not_there_is_unavailable(url):
    with pytest.raises(Unavailable):
        build_broker(url).check()


def test_what_a_lost_connection_had_brought_keeps_nobody_waiting(rabbitmq_url):
    """It comes again; nobody takes it for what has its number on the next connection."""
    parts = urlsplit(rabbitmq_url)
    with Links() as links:
        link = links.open("worker-rabbitmq", (parts.hostname, parts.port))
        broker = build_broker(f"amqp://{parts.username}:{parts.password}@127.0.0.1:{link.port}{parts.path}")
        broker.enqueue(job_message("memory", "memory.change", new_id("job")))
        consumer = broker.consume("memory", timeout=1000)
        message = eventually(lambda: next(consumer))

        link.cut()
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            eventually(lambda: next(consumer))
        consumer.ack(message)

        another = broker.consume("memory", timeout=1000)
        again = eventually(lambda: next(another))
        another.ack(message)
        assert (again.message_id, again._tag) == (message.message_id, message._tag)
        assert another.known_tags == {again._tag}
        another.ack(again)
        another.close()
        broker.close()


def test_publishing_to_one_that_is_not_there_is_a_lost_connection():
    broker = build_broker("amqp://127.0.0.1:1/")

    with pytest.raises(dramatiq.errors.ConnectionClosed):
        broker.enqueue(job_message("memory", "memory.change", "job_1"))


@pytest.mark.parametrize("url", ["amqp://guest@host/", "amqp://a:b@host:port/"])
def test_half_an_address_is_one_line_that_names_the_variable(url):
    with pytest.raises(ConfigurationError, match="SANGHA_BROKER_URL"):
        build_broker(url)


def test_rabbitmq_queues_are_replicated_and_bounded(rabbitmq_url):
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


def test_a_consumer_with_full_hands_waits_for_a_free_one(broker):
    """Prefetch is one message a thread: the others are free for other workers."""
    sent = [broker.enqueue(job_message(QUEUE, "test.heard", f"job_{n}")).message_id for n in range(2)]
    one, two = (broker.consume(QUEUE, prefetch=1, timeout=200) for _ in range(2))

    first, second = eventually(lambda: next(one)), eventually(lambda: next(two))

    assert {first.message_id, second.message_id} == set(sent)
    assert next(one) is None
    one.ack(first)
    two.ack(second)
    assert next(one) is None
    one.close()
    two.close()


def test_a_consumer_with_full_hands_gives_signs_of_life(settings):
    """One that gives none for a minute is taken for dead, and its messages go to others while it works on them."""
    broker = build_broker(settings.broker_address)
    broker.flush_all()
    consumer = broker.consume("inference", prefetch=1, timeout=20)
    broker.enqueue(job_message("inference", "turn.run", "job_1"))
    assert next(message for message in consumer if message) is not None

    def sign_of_life():
        return broker.client.zscore("sangha:queue:__heartbeats__", broker.broker_id)

    before = sign_of_life()
    eventually(lambda: next(consumer) is None and sign_of_life() > before)
    broker.flush_all()
    broker.close()

"""RabbitMQ's queues: a slow one keeps its messages, and one without a leader is recreated."""

import itertools
import os
import signal
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import dramatiq
import pika
import pytest

from bench.chaos.proxy import Links
from bench.harness.waiting import wait_until
from ops.child_process import ChildProcess
from ops.rabbitmq import RabbitMQ
from tasks import rabbitmq, rabbitmq_probe
from tasks.broker import job_message
from tasks.rabbitmq import QuorumBroker

QUEUE = "test_rabbitmq"


def message(queue=QUEUE, job_id="job_1"):
    return job_message(queue, "test.received", job_id)


def job_ids(messages):
    return [message.args[0] for message in messages]


@pytest.fixture
def link(rabbitmq_url):
    """A TCP proxy in front of RabbitMQ."""
    parts = urlsplit(rabbitmq_url)
    with Links() as links:
        yield links.open("rabbitmq", (parts.hostname, parts.port))


@pytest.fixture
def broker(rabbitmq_url, link):
    """A broker behind the link, with an empty queue."""
    parts = urlsplit(rabbitmq_url)
    broker = QuorumBroker(f"amqp://{parts.username}:{parts.password}@127.0.0.1:{link.port}{parts.path}")
    broker.declare_queue(QUEUE, ensure=True)
    broker.flush(QUEUE)
    yield broker
    link.heal()
    wait_for_probes()
    broker.close()


def wait_for_probes():
    """Wait until no probe hangs any more; its connection would be left open."""
    wait_until(lambda: not any(thread.name.startswith("probe") for thread in threading.enumerate()))


@pytest.fixture
def recreated(broker):
    """The queues that the broker has recreated."""
    queues = []
    broker.on_queue_recreated = queues.append
    return queues


def drain(broker, queue=QUEUE):
    """Return the messages of a queue, acknowledged."""
    consumer, messages = broker.consume(queue, prefetch=100, timeout=200), []
    while (received := next(consumer)) is not None:
        messages.append(received)
        consumer.ack(received)
    consumer.close()
    return messages


def consume_for(broker, seconds):
    """Try to consume, as a worker does. Returns the number of failures."""
    failures, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            broker.consume(QUEUE, timeout=200).close()
        except dramatiq.errors.ConnectionClosed:
            failures += 1
    return failures


def test_a_queue_that_does_not_answer_for_ten_seconds_keeps_its_messages(broker, link, recreated, monkeypatch):
    # Given a patience that has passed after the first probe
    monkeypatch.setattr(rabbitmq_probe, "SILENCE", 0)
    monkeypatch.setattr(rabbitmq_probe, "SILENT_PROBES", 1)
    monkeypatch.setattr(rabbitmq_probe, "PROBE_TIMEOUT", 1.0)
    broker.enqueue(message())

    # When answers of RabbitMQ take longer than a probe waits
    link.delay(2.0)
    failures = consume_for(broker, 10)
    link.heal()

    assert failures > 1
    assert recreated == []
    assert job_ids(drain(broker)) == ["job_1"]


def test_a_queue_that_is_silent_for_ten_seconds_while_others_answer_keeps_its_messages(broker, recreated, monkeypatch):
    # Given a queue that hangs, as in a long election
    broker.enqueue(message())
    real = broker._probe._try
    monkeypatch.setattr(broker._probe, "_try", lambda name, use: "silence" if name == QUEUE else real(name, use))

    # When it is probed during ten seconds
    seconds = itertools.count()
    monkeypatch.setattr(rabbitmq_probe, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    for _ in range(5):
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            broker.consume(QUEUE)

    monkeypatch.undo()
    assert next(seconds) >= 10
    assert recreated == []
    assert job_ids(drain(broker)) == ["job_1"]


class PrivateServer:
    """A RabbitMQ node for one test."""

    def __init__(self, folder):
        self.node = RabbitMQ(folder / "rabbitmq")
        self.folders = folder / "run", folder / "logs"
        for path in self.folders:
            path.mkdir()
        self.start()

    def start(self):
        self.child = ChildProcess(self.node, *self.folders)
        self.child.start()
        self.child.wait_ready()

    def kill(self):
        os.kill(self.child.pid, signal.SIGKILL)
        self.stop()

    def stop(self):
        self.child.stop(10)
        self.node.close()


@pytest.fixture
def server(tmp_path):
    server = PrivateServer(tmp_path)
    yield server
    server.stop()
    wait_for_probes()


@pytest.fixture
def private_broker(server):
    broker = QuorumBroker(server.node.url)
    yield broker
    broker.close()


def test_a_queue_without_a_leader_is_recreated_and_reported(server, private_broker, monkeypatch):
    """RabbitMQ 3.10 writes its table of quorum queues to the disk every three minutes."""
    monkeypatch.setattr(rabbitmq_probe, "SILENCE", 3.0)
    monkeypatch.setattr(rabbitmq_probe, "PROBE_TIMEOUT", 1.5)
    broker, recreated = private_broker, []
    broker.on_queue_recreated = recreated.append

    # Given a server that was killed right after a queue was declared
    broker.enqueue(message())
    server.kill()
    server.start()

    # When a worker tries to consume it
    consumer = wait_until(lambda: try_to_consume(broker), timeout=60)

    # Then the queue is empty and works
    assert recreated == [QUEUE]
    broker.enqueue(message(job_id="job_2"))
    assert wait_until(lambda: next(consumer)).args == ("job_2",)
    consumer.close()


def try_to_consume(broker):
    try:
        return broker.consume(QUEUE, timeout=200)
    except dramatiq.errors.ConnectionClosed:
        return None


def test_a_queue_that_was_deleted_is_declared_again_by_the_next_batch(broker, rabbitmq_url):
    broker.enqueue(message())
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        connection.channel().queue_delete(QUEUE)

    lost = broker.publish_batch([message()])
    found = broker.publish_batch([message(job_id="job_2")])

    assert (list(lost.confirmed), type(lost.error)) == ([], rabbitmq.QueueMissing)
    assert (job_ids(found.confirmed), found.error) == (["job_2"], None)
    assert job_ids(drain(broker)) == ["job_2"]


def test_messages_without_a_confirm_are_not_counted_as_sent(broker, link, monkeypatch):
    monkeypatch.setattr("tasks.rabbitmq_publisher.CONFIRM_TIMEOUT", 0.5)
    assert broker.publish_batch([message()]).error is None

    link.stall(down=True, up=False)
    silent = broker.publish_batch([message(job_id="job_2")])
    link.heal()
    again = broker.publish_batch([message(job_id="job_2")])

    assert (list(silent.confirmed), type(silent.error)) == ([], rabbitmq.QueueSilent)
    assert (job_ids(again.confirmed), again.error) == (["job_2"], None)
    assert set(job_ids(drain(broker))) == {"job_1", "job_2"}


def test_a_silent_queue_does_not_delay_the_batches_of_others(broker, monkeypatch):
    """The next batch does not wait for it."""
    result = rabbitmq.PublishResult([message("other")], rabbitmq.QueueSilent({QUEUE}))
    broker._remember(result)
    broker.declare_queue("test_rabbitmq_other", ensure=True)

    sent = broker.publish_batch([message(), message("test_rabbitmq_other", "job_2")])

    assert (job_ids(sent.confirmed), type(sent.error)) == (["job_2"], rabbitmq.QueueSilent)
    assert job_ids(drain(broker, "test_rabbitmq_other")) == ["job_2"]


def test_a_lost_connection_is_replaced_by_the_next_batch(broker, link):
    broker.enqueue(message())

    link.cut()
    results = [broker.publish_batch([message(job_id="job_2")]) for _ in range(2)]

    assert results[-1].error is None
    assert set(job_ids(drain(broker))) == {"job_1", "job_2"}


def test_an_idle_connection_that_was_lost_is_replaced(broker, link):
    broker.enqueue(message())
    link.cut()
    publisher = broker._publisher()
    wait_until(lambda: broker.keep_alive() or not publisher._link.is_open)

    assert broker.publish_batch([message(job_id="job_2")]).error is None


def test_nothing_is_published_while_rabbitmq_blocks_publishers(server, private_broker):
    broker = private_broker
    broker.enqueue(message())
    server.node.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1MB")

    # RabbitMQ reports it when it receives the first message
    blocked = broker.publish_batch([message(job_id="job_2")])
    started = time.monotonic()
    again = broker.publish_batch([message(job_id="job_3")])

    assert "lacks memory" in str(blocked.error)
    assert "lacks memory" in str(again.error)
    assert time.monotonic() - started < 1
    server.node.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
    wait_until(lambda: broker.publish_batch([message(job_id="job_4")]).error is None)
    assert "job_3" not in job_ids(drain(broker))

"""Dramatiq's RabbitMQ broker with quorum queues.

A quorum queue whose node is killed within three minutes of its declaration can be left without a leader for good
(RabbitMQ 3.10). Publishers and consumers then hang. Its messages can be published again from the rows, so a worker
deletes and recreates such a queue.
"""

import contextlib
import logging
import os
import random
import threading
import time
from typing import Any

# Milliseconds before a consumer reconnects, instead of 3,000. Dramatiq reads it when it is imported.
os.environ.setdefault("dramatiq_restart_delay", "300")

import dramatiq
import pika
from dramatiq.broker import Consumer
from dramatiq.brokers.rabbitmq import RabbitmqBroker, _RabbitmqConsumer
from dramatiq.common import xq_name
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import CurrentMessage

from models.platform.errors import ConfigurationError, Unavailable

log = logging.getLogger(__name__)

#: Deliveries of a message before RabbitMQ moves it to the dead-letter queue. A backstop: the job's own count of
#: failures ends it long before.
DELIVERY_LIMIT = 50

#: Seconds after which a queue without an answer has no leader; an election takes one or two.
QUEUE_TIMEOUT = 5.0


class QuorumBroker(RabbitmqBroker):
    """RabbitMQ broker with quorum queues, publisher confirms and no delay queues."""

    def __init__(self, url: str) -> None:
        try:
            super().__init__(url=url, confirm_delivery=True, middleware=[CurrentMessage()])
        except (TypeError, ValueError):  # raised by pika for an incomplete URL
            raise ConfigurationError(
                "SANGHA_BROKER_URL is malformed: it should be amqp://user:password@host:port/vhost"
            ) from None

    @property
    def consumer_class(self) -> type["ConnectionBoundConsumer"]:
        """Return the consumer class, which never blocks a thread on a lost connection."""
        return ConnectionBoundConsumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return a consumer of a queue, which is recreated when it has lost its leader."""
        self.declare_queue(queue_name, ensure=True)
        if not self._has_leader(queue_name):
            self._recreate(queue_name)
        return super().consume(queue_name, prefetch, timeout)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish and wait for the confirm. Raises ConnectionClosed, also for a queue without a leader."""
        try:
            self._ensure_usable(message.queue_name)
        except (pika.exceptions.AMQPError, OSError) as error:
            raise ConnectionClosed(error) from None
        return super().enqueue(message, delay=delay)

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Declare a queue without its delay queue."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure:
            self._ensure_queue(queue_name)  # type: ignore[no-untyped-call]

    def _ensure_usable(self, queue_name: str) -> None:
        """Declare the queue once per connection. Raises ConnectionClosed when it has no leader."""
        if self.state.__dict__.get("verified_connection") is not self.connection:
            self.declare_queue(queue_name, ensure=True)
            if not self._has_leader(queue_name):
                raise ConnectionClosed(f"the queue {queue_name} has no leader")
            self.state.verified_connection = self.connection

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": xq_name(queue_name),
        }

    def _declare_dq_queue(self, queue_name: str) -> None:
        """Declare nothing: there are no delay queues."""

    def _has_leader(self, queue_name: str) -> bool:
        """Return whether the queue has a leader; without one, RabbitMQ's clients hang for more than a minute."""
        return queue_answers(self.parameters, queue_name, QUEUE_TIMEOUT)

    def _recreate(self, queue_name: str) -> None:
        """Delete and declare a queue. The relay publishes its messages again."""
        time.sleep(random.uniform(0, QUEUE_TIMEOUT / 2))  # so that one of several workers does it
        if self._has_leader(queue_name):
            return
        log.warning("Recreating queue %s, which has lost its leader", queue_name)
        with pika.BlockingConnection(self.parameters) as connection:
            connection.channel().queue_delete(queue_name)
        self.queues_pending.add(queue_name)
        self.declare_queue(queue_name, ensure=True)

    def keep_alive(self) -> None:
        """Answer the server's heartbeats on this thread's connection while it is idle."""
        if getattr(self.state, "connection", None) is None:
            return
        try:
            self.state.connection.process_data_events(0)
        except pika.exceptions.AMQPError:
            del self.connection

    def check(self) -> None:
        """Raise Unavailable when RabbitMQ cannot be reached."""
        try:
            pika.BlockingConnection(self.parameters).close()
        except (pika.exceptions.AMQPError, OSError) as error:
            raise Unavailable(f"cannot connect to RabbitMQ: {type(error).__name__} {error}") from error


class ConnectionBoundConsumer(_RabbitmqConsumer):
    """A consumer that acknowledges a message only on the connection that delivered it.

    A message of a lost connection is delivered again, and its second claim is refused. Dramatiq would retry the
    acknowledgement every five seconds on the next connection, where the delivery tag means another message or none.
    """

    def __next__(self) -> Any:
        message = super().__next__()  # type: ignore[no-untyped-call]
        if message is not None:
            message.delivered_by = self
        return message

    def ack(self, message: Any) -> None:
        """Acknowledge a message, if its connection is open."""
        if message.delivered_by is self:
            with contextlib.suppress(ConnectionClosed):
                super().ack(message)  # type: ignore[no-untyped-call]

    def nack(self, message: Any) -> None:
        """Reject a message, if its connection is open."""
        if message.delivered_by is self:
            with contextlib.suppress(ConnectionClosed):
                super().nack(message)  # type: ignore[no-untyped-call]


def queue_answers(parameters: pika.URLParameters, queue_name: str, timeout: float) -> bool:
    """Return whether a queue answers a get within `timeout` seconds.

    The get runs on its own connection and thread, since it may block forever. A message that it returns is requeued
    when the connection closes. An error counts as an answer: the caller's next call raises it.
    """

    def get_message() -> None:
        try:
            with pika.BlockingConnection(parameters) as connection:
                connection.channel().basic_get(queue_name)
        except (pika.exceptions.AMQPError, OSError) as error:
            log.debug("Cannot get from queue %s: %r", queue_name, error)

    thread = threading.Thread(target=get_message, name=f"probe-{queue_name}", daemon=True)
    thread.start()
    thread.join(timeout)
    return not thread.is_alive()

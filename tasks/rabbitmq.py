"""RabbitMQ with quorum queues.

A quorum queue that was declared shortly before its node was killed can come back without a leader (in RabbitMQ 3.10 for
up to three minutes after its declaration, and for good). Publishers and consumers then hang. The queue holds nothing
that the rows don't, so a worker that finds it so makes it anew.
"""

import contextlib
import logging
import os
import random
import threading
import time
from typing import Any

# Read by Dramatiq when it is imported: after a lost connection a consumer is back soon, not after three seconds.
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

#: Deliveries of one message before RabbitMQ puts it aside. A backstop only: the job's own count of failures ends it
#: long before.
DELIVERY_LIMIT = 50

#: Seconds that a queue may take to answer; an election takes one or two.
PATIENCE = 5.0


class QuorumBroker(RabbitmqBroker):
    """RabbitMQ with a replicated queue for each of the catalogue's, publisher confirms, and no delay queues."""

    def __init__(self, url: str) -> None:
        try:
            super().__init__(url=url, confirm_delivery=True, middleware=[CurrentMessage()])
        except (TypeError, ValueError):  # what pika makes of half an address
            raise ConfigurationError("SANGHA_BROKER_URL should be amqp://user:password@host:port/vhost") from None

    @property
    def consumer_class(self) -> type["LightConsumer"]:
        """Consumers that keep no thread waiting for a connection that is gone."""
        return LightConsumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """A consumer of a queue that answers; one that has lost its leader for good is made anew."""
        self.declare_queue(queue_name, ensure=True)
        if not self._answers(queue_name):
            self._make_anew(queue_name)
        return super().consume(queue_name, prefetch, timeout)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish and wait for the confirm. Raises ConnectionClosed, also for a queue that does not answer."""
        try:
            self._make_sure_of(message.queue_name)
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

    def _make_sure_of(self, queue_name: str) -> None:
        """On a new connection: have the queue there. Raises ConnectionClosed where it does not answer."""
        if self.state.__dict__.get("sure_of") is not self.connection:
            self.declare_queue(queue_name, ensure=True)
            if not self._answers(queue_name):
                raise ConnectionClosed(f"the queue {queue_name} does not answer")
            self.state.sure_of = self.connection

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": xq_name(queue_name),
        }

    def _declare_dq_queue(self, queue_name: str) -> None:
        """There are no delay queues."""

    def _answers(self, queue_name: str) -> bool:
        """Whether the queue has a leader: without one RabbitMQ lets its users wait for more than a minute."""
        return answers(self.parameters, queue_name, PATIENCE)

    def _make_anew(self, queue_name: str) -> None:
        """Delete and declare a queue. What was in it are nudges, and the outbox sends those again."""
        time.sleep(random.uniform(0, PATIENCE / 2))  # other workers see the same, and one of them is enough
        if self._answers(queue_name):
            return
        log.warning("the queue %s has lost its leader and is made anew", queue_name)
        with pika.BlockingConnection(self.parameters) as connection:
            connection.channel().queue_delete(queue_name)
        self.queues_pending.add(queue_name)
        self.declare_queue(queue_name, ensure=True)

    def keep_alive(self) -> None:
        """Answer the server's heartbeats on this thread's connection, which nobody else does while it is idle."""
        if getattr(self.state, "connection", None) is None:
            return
        try:
            self.state.connection.process_data_events(0)
        except pika.exceptions.AMQPError:
            del self.connection

    def check(self) -> None:
        """Raise Unavailable unless RabbitMQ lets us in."""
        try:
            pika.BlockingConnection(self.parameters).close()
        except (pika.exceptions.AMQPError, OSError) as error:
            raise Unavailable(f"RabbitMQ does not answer: {type(error).__name__} {error}") from error


class LightConsumer(_RabbitmqConsumer):
    """A consumer that acknowledges what it has brought itself, while it can.

    What a lost connection had brought comes again by itself, and its claim drops it. Dramatiq would have the thread try
    every five seconds to acknowledge it on the next connection, where its number means another message or none.
    """

    def __next__(self) -> Any:
        message = super().__next__()  # type: ignore[no-untyped-call]
        if message is not None:
            message.brought_by = self
        return message

    def ack(self, message: Any) -> None:
        """Acknowledge, if there is somebody to hear it."""
        if message.brought_by is self:
            with contextlib.suppress(ConnectionClosed):
                super().ack(message)  # type: ignore[no-untyped-call]

    def nack(self, message: Any) -> None:
        """Reject, if there is somebody to hear it."""
        if message.brought_by is self:
            with contextlib.suppress(ConnectionClosed):
                super().nack(message)  # type: ignore[no-untyped-call]


def answers(parameters: pika.URLParameters, queue_name: str, patience: float) -> bool:
    """Ask a queue for a message, on a connection and in a thread of its own, for it may never answer.

    A message that comes goes back when the connection closes. An error is an answer too: whoever comes next meets it.
    """

    def ask() -> None:
        try:
            with pika.BlockingConnection(parameters) as connection:
                connection.channel().basic_get(queue_name)
        except (pika.exceptions.AMQPError, OSError) as error:
            log.debug("asking %s: %r", queue_name, error)

    thread = threading.Thread(target=ask, name=f"ask-{queue_name}", daemon=True)
    thread.start()
    thread.join(patience)
    return not thread.is_alive()

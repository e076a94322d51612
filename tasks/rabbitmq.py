"""Dramatiq's RabbitMQ broker with quorum queues.

A quorum queue whose node is killed within three minutes of its declaration can be left without a leader for good
(RabbitMQ 3.10). Its messages can be published again from the rows, so a worker deletes and recreates such a queue.
"""

import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
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

from models.platform.errors import Unavailable
from tasks.publishing import PublishResult
from tasks.rabbitmq_probe import PROBE_TIMEOUT, QueueProbe
from tasks.rabbitmq_publisher import Publisher, QueueMissing, QueueSilent
from tasks.rabbitmq_url import connection_error, parse_amqp_url

log = logging.getLogger(__name__)

#: Deliveries of a message before RabbitMQ moves it to the dead-letter queue. A backstop: the job's own count of
#: failures ends it long before.
DELIVERY_LIMIT = 50

#: Seconds for which a queue that has not confirmed its messages gets no new ones.
SILENT_PAUSE = 5.0


class QuorumBroker(RabbitmqBroker):
    """RabbitMQ broker with quorum queues, publisher confirms and no delay queues.

    on_queue_recreated  called with the name of a queue that was deleted with its messages and declared again
    """

    def __init__(self, url: str) -> None:
        super().__init__(confirm_delivery=True, middleware=[CurrentMessage()])
        nodes = [parse_amqp_url(node) for node in url.split(";")]
        self.parameters = nodes if len(nodes) > 1 else nodes[0]
        self.on_queue_recreated: Callable[[str], None] | None = None
        self._probe = QueueProbe(self.parameters)
        self._publishers: set[Publisher] = set()
        self._silent_until: dict[str, float] = {}

    @property
    def consumer_class(self) -> type["ConnectionBoundConsumer"]:
        """Return the consumer class, which never blocks a thread on a lost connection."""
        return ConnectionBoundConsumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return a consumer of a queue.

        Raises ConnectionClosed for a queue that does not answer. One that has lost its leader is recreated by a later
        call.
        """
        self.declare_queue(queue_name, ensure=True)
        state = self._probe.state(queue_name)
        if state == "leaderless":
            self._recreate(queue_name)
        elif state == "silent":
            raise ConnectionClosed(f"the queue {queue_name} does not answer")
        return super().consume(queue_name, prefetch, timeout)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish a message and wait for its confirm. Raises ConnectionClosed."""
        if (error := self.publish_batch([message]).error) is not None:
            raise error
        return message

    def publish_batch(self, messages: Sequence[dramatiq.Message[Any]]) -> PublishResult:
        """Publish messages and wait once for their confirms."""
        silent = self._silent_queues()
        accepted = [message for message in messages if message.queue_name not in silent]
        try:
            self._declare_pending({message.queue_name for message in accepted})
        except ConnectionClosed as error:
            return PublishResult([], error)
        result = self._publisher().publish(accepted) if accepted else PublishResult([])
        self._remember(result)
        if result.error is None and len(accepted) < len(messages):
            return PublishResult(result.confirmed, QueueSilent(silent))
        return result

    def close(self) -> None:
        """Close all connections."""
        for publisher in self._publishers:
            publisher.close()
        self._publishers.clear()
        super().close()

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Declare a queue without its delay queue."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure:
            self._ensure_queue(queue_name)  # type: ignore[no-untyped-call]

    def _silent_queues(self) -> set[str]:
        """Return the queues that get no messages for a while, so that the others do not wait for them."""
        now = time.monotonic()
        return {queue_name for queue_name, until in list(self._silent_until.items()) if now < until}

    def _remember(self, result: PublishResult) -> None:
        """Declare missing queues before the next message to them, and send none to silent ones for a while."""
        if isinstance(result.error, QueueMissing):
            self.queues_pending.update(result.error.queues)
        if isinstance(result.error, QueueSilent) and result.confirmed:  # otherwise the server may be silent
            self._silent_until |= dict.fromkeys(result.error.queues, time.monotonic() + SILENT_PAUSE)

    def _declare_pending(self, queue_names: set[str]) -> None:
        """Declare queues that have not been declared, or were missing. Raises ConnectionClosed."""
        pending = {name for name in queue_names if name in self.queues_pending or name not in self.queues}
        try:
            for queue_name in pending:
                self.declare_queue(queue_name, ensure=True)
        except (pika.exceptions.AMQPError, OSError) as error:
            raise ConnectionClosed(error) from None
        if pending:
            del self.connection  # the publisher has a connection of its own

    def _publisher(self) -> Publisher:
        """Return this thread's publisher."""
        publisher: Publisher | None = getattr(self.state, "publisher", None)
        if publisher is None:
            parameters = self.parameters if isinstance(self.parameters, list) else [self.parameters]
            publisher = self.state.publisher = Publisher(parameters)
            self._publishers.add(publisher)
        return publisher

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": xq_name(queue_name),
        }

    def _declare_dq_queue(self, queue_name: str) -> None:
        """Declare nothing: there are no delay queues."""

    def _recreate(self, queue_name: str) -> None:
        """Delete and declare a queue whose messages cannot be read again, and report it to `on_queue_recreated`."""
        time.sleep(random.uniform(0, PROBE_TIMEOUT / 2))  # so that one of several workers does it
        if self._probe.state(queue_name) == "answers":
            return
        log.warning("Recreating queue %s, which has lost its leader", queue_name)
        with pika.BlockingConnection(self.parameters) as connection:
            connection.channel().queue_delete(queue_name)
        self._probe.forget(queue_name)
        self.queues_pending.add(queue_name)
        self.declare_queue(queue_name, ensure=True)
        self._silent_until.pop(queue_name, None)
        if self.on_queue_recreated is not None:
            try:
                self.on_queue_recreated(queue_name)
            except Exception:
                log.exception(
                    "Queue %s: cannot report that it was recreated; its jobs are sent again later", queue_name
                )

    def keep_alive(self) -> None:
        """Answer the server's heartbeats on the connection of this thread's publisher while it is idle."""
        if (publisher := getattr(self.state, "publisher", None)) is not None:
            publisher.keep_alive()

    def age(self) -> None:
        """Return None: a quorum queue loses no message at a restart."""

    def check(self) -> None:
        """Raise Unavailable when RabbitMQ cannot be reached."""
        try:
            pika.BlockingConnection(self.parameters).close()
        except (pika.exceptions.AMQPError, OSError) as error:
            raise Unavailable(f"cannot connect to RabbitMQ: {connection_error(error)}") from error


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

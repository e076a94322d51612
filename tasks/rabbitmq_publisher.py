"""Publish batches of messages to RabbitMQ, and wait once for the confirms of a batch.

pika's blocking channel waits for the confirm of each message, and RabbitMQ for the disk before each confirm. Here a
batch is sent as a whole on pika's asynchronous connection, whose event loop runs only while a method waits. RabbitMQ
then writes the batch to the disk together.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import dramatiq
import pika
from dramatiq.errors import ConnectionClosed
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.channel import Channel
from pika.exceptions import AMQPError

from tasks.publishing import PublishResult

#: Seconds to connect, and for the confirms of a batch. The relay holds a transaction meanwhile, which Postgres ends
#: after 10 s.
CONNECT_TIMEOUT, CONFIRM_TIMEOUT = 5.0, 5.0

#: Seconds for the closing handshake.
CLOSE_TIMEOUT = 0.5


class Publisher:
    """A connection for one thread. It connects on first use, and again after an error."""

    def __init__(self, parameters: Sequence[pika.connection.Parameters]) -> None:
        self._parameters = [copy.copy(server) for server in parameters]
        for server in self._parameters:
            server.socket_timeout = server.stack_timeout = CONNECT_TIMEOUT
        self._link: Link | None = None

    def publish(self, messages: Sequence[dramatiq.Message[Any]]) -> PublishResult:
        """Publish a batch to existing queues."""
        is_reused = self._link is not None
        result = self._publish(Batch(messages))
        if self._link is None and is_reused and not result.confirmed and not isinstance(result.error, QueueSilent):
            return self._publish(Batch(messages))  # the connection was lost while it was idle
        return result

    def _publish(self, batch: "Batch") -> PublishResult:
        try:
            self._open_link().publish(batch)
        except (AMQPError, OSError) as error:
            batch.error = ConnectionClosed(error)
            self.close()
        if isinstance(batch.error, QueueSilent):
            self.close()  # it may be the connection that is dead
        return batch.result()

    def keep_alive(self) -> None:
        """Answer the server's heartbeats while the connection is idle."""
        if self._link is not None:
            self._link.run_until(lambda: False, 0)

    def close(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _open_link(self) -> "Link":
        if self._link is not None and not self._link.is_open:
            self.close()
        if self._link is None:
            self._link = Link(self._parameters)
        return self._link


class Batch:
    """The messages of a batch by delivery tag, until each is confirmed or refused."""

    def __init__(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        self.messages = messages
        self.error: Exception | None = None
        self._waiting: dict[int, dramatiq.Message[Any]] = {}
        self._confirmed: set[str] = set()
        self._unroutable: set[str] = set()

    def add(self, tag: int, message: dramatiq.Message[Any]) -> None:
        """Wait for the confirm of a message that was sent."""
        self._waiting[tag] = message

    def is_settled(self) -> bool:
        """Return whether each message that was sent is confirmed or refused."""
        return not self._waiting

    def settle(self, tag: int, *, multiple: bool, confirmed: bool) -> None:
        """Record a confirm or refusal, of all messages up to this tag if `multiple`."""
        for settled in [sent for sent in self._waiting if sent <= tag] if multiple else [tag]:
            if (message := self._waiting.pop(settled, None)) is None:
                continue  # of an earlier batch
            if message.message_id in self._unroutable:
                self.error = QueueMissing({message.queue_name} | getattr(self.error, "queues", set()))
            elif confirmed:
                self._confirmed.add(message.message_id)
            else:
                self.error = ConnectionClosed(f"RabbitMQ refused a message to the queue {message.queue_name}")

    def mark_unroutable(self, message_id: str | None) -> None:
        """Record a message that has no queue. RabbitMQ confirms it nevertheless, afterwards."""
        self._unroutable.add(message_id or "")

    def silent_queues(self) -> set[str]:
        """Return the queues of the messages that wait for their confirm."""
        return {message.queue_name for message in self._waiting.values()}

    def result(self) -> PublishResult:
        """Return what is confirmed by now."""
        return PublishResult([m for m in self.messages if m.message_id in self._confirmed], self.error)


class QueueMissing(ConnectionClosed):
    """Messages were published to queues that do not exist."""

    def __init__(self, queues: set[str]) -> None:
        names = ", ".join(sorted(queues))
        super().__init__(f"RabbitMQ does not have the queues {names}")  # type: ignore[no-untyped-call]
        self.queues = queues


class QueueSilent(ConnectionClosed):
    """Queues did not confirm their messages in time."""

    def __init__(self, queues: set[str]) -> None:
        names = ", ".join(sorted(queues))
        super().__init__(f"RabbitMQ does not confirm messages to the queues {names}")  # type: ignore[no-untyped-call]
        self.queues = queues


class Link:
    """One connection with a channel in confirm mode, open from its creation until an error.

    Raises AMQPError and OSError.
    """

    def __init__(self, parameters: Sequence[pika.connection.Parameters]) -> None:
        self._loop = IOLoop()
        self._batch = Batch([])
        self._last_tag = 0
        self._lost: BaseException | None = None
        self._blocked = False
        self._connection = self._connect(parameters)
        try:
            self._channel = self._open_channel()
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Return whether the connection was open when it was last used."""
        return self._lost is None

    def publish(self, batch: Batch) -> None:
        """Send a batch and wait until it is settled."""
        self._batch = batch  # late confirms of an earlier batch are dropped
        self.run_until(lambda: False, 0)  # learns of a lost or blocked connection
        if not self._blocked:
            self._send(batch)
            self.run_until(lambda: batch.is_settled() or self._blocked or not self.is_open, CONFIRM_TIMEOUT)
        if self._lost is not None:
            raise self._lost
        if self._blocked:
            batch.error = ConnectionClosed("RabbitMQ accepts no messages: it lacks memory or disk space")
        elif not batch.is_settled():
            batch.error = QueueSilent(batch.silent_queues())

    def run_until(self, done: Callable[[], bool], timeout: float) -> None:
        """Process events until `done`, for at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        timer = self._loop.call_later(timeout, lambda: None)  # ends the wait for events
        self._loop.activate_poller()
        try:
            while not done():
                self._loop.poll()
                self._loop.process_timeouts()
                if time.monotonic() >= deadline:
                    return
        finally:
            self._loop.remove_timeout(timer)
            self._loop.deactivate_poller()

    def close(self) -> None:
        """Close the connection, with RabbitMQ's consent if it answers."""
        with contextlib.suppress(AMQPError):
            if self._connection.is_open:
                self._connection.close()
        self.run_until(lambda: self._connection.is_closed, CLOSE_TIMEOUT)
        if not self._connection.is_closed:
            self._connection._terminate_stream(TimeoutError("RabbitMQ does not answer"))
            self.run_until(lambda: self._connection.is_closed, CLOSE_TIMEOUT)
        self._loop.close()

    def _connect(self, parameters: Sequence[pika.connection.Parameters]) -> SelectConnection:
        results: list[Any] = []
        SelectConnection.create_connection(parameters, on_done=results.append, custom_ioloop=self._loop)
        while not results:  # pika ends each step within the time-outs of the parameters
            self.run_until(lambda: bool(results), CONNECT_TIMEOUT)
        connection = results[0]
        if not isinstance(connection, SelectConnection):
            self._loop.close()
            raise ConnectionError(f"cannot connect to RabbitMQ: {connection!r}")
        connection.add_on_close_callback(lambda _, error: self._on_lost(error))
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))
        return connection

    def _open_channel(self) -> Channel:
        opened: list[Any] = []
        channel = self._connection.channel(on_open_callback=opened.append)
        channel.add_on_close_callback(lambda _, error: self._on_lost(error))
        channel.add_on_return_callback(
            lambda _c, _m, properties, _b: self._batch.mark_unroutable(properties.message_id)
        )
        self._await(opened)
        confirming: list[Any] = []
        channel.confirm_delivery(self._on_confirm, callback=confirming.append)
        self._await(confirming)
        return channel

    def _await(self, results: list[Any]) -> None:
        self.run_until(lambda: bool(results) or not self.is_open, CONNECT_TIMEOUT)
        if self._lost is not None:
            raise self._lost
        if not results:
            raise TimeoutError("RabbitMQ does not open a channel")

    def _send(self, batch: Batch) -> None:
        for message in batch.messages:
            self._last_tag += 1
            batch.add(self._last_tag, message)
            properties = pika.BasicProperties(delivery_mode=2, message_id=message.message_id)
            self._channel.basic_publish("", message.queue_name, message.encode(), properties, mandatory=True)

    def _on_confirm(self, frame: Any) -> None:
        confirmed = isinstance(frame.method, pika.spec.Basic.Ack)
        self._batch.settle(frame.method.delivery_tag, multiple=frame.method.multiple, confirmed=confirmed)

    def _on_lost(self, error: BaseException) -> None:
        self._lost = self._lost or error

    def _set_blocked(self, blocked: bool) -> None:
        self._blocked = blocked

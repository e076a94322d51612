"""Dramatiq's Redis broker with blocking consumers, for the embedded default."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import CurrentMessage
from redis.client import Pipeline

from models.platform.errors import Unavailable
from models.platform.redis_client import connect
from tasks.publishing import PublishResult

#: Seconds that an idle consumer blocks at most.
MAX_BLOCK_TIME = 1.0

#: Wake-ups that are kept per queue while all consumers are busy.
MAX_WAKE_UPS = 128


class BlockingRedisBroker(RedisBroker):
    """Redis broker whose consumers block instead of polling: a message takes about 1 ms instead of 9 ms and more."""

    def __init__(self, url: str) -> None:
        super().__init__(client=connect(url), namespace="sangha:queue", middleware=[CurrentMessage()])  # type: ignore[no-untyped-call]

    @property
    def consumer_class(self) -> type["BlockingRedisConsumer"]:
        """Return the blocking consumer class."""
        return BlockingRedisConsumer

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue without its delay queue."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Enqueue a message and wake a consumer. Raises redis.RedisError."""
        if (error := self.publish_batch([message]).error) is not None:
            raise error
        return message

    def publish_batch(self, messages: Sequence[dramatiq.Message[Any]]) -> PublishResult:
        """Enqueue messages and wake their consumers, in one round trip."""
        with self.client.pipeline(transaction=False) as pipeline:
            for message in messages:
                self._add(pipeline, message)
            for queue_name, count in Counter(message.queue_name for message in messages).items():
                pipeline.lpush(wake_key(queue_name), *[1] * count)
                pipeline.ltrim(wake_key(queue_name), 0, MAX_WAKE_UPS - 1)
            try:
                results = pipeline.execute(raise_on_error=False)
            except redis.RedisError as error:
                return PublishResult([], error)
        errors = [result for result in results if isinstance(result, Exception)]
        accepted = [
            message
            for message, result in zip(messages, results, strict=False)  # the wake-ups follow
            if not isinstance(result, Exception)
        ]
        return PublishResult(accepted, errors[0] if errors else None)

    def _add(self, pipeline: Pipeline, message: dramatiq.Message[Any]) -> None:
        """Add the command that RedisBroker sends to enqueue a message. Its maintenance is left to the consumers."""
        redis_id = str(uuid4())
        stored = message.copy(options={"redis_message_id": redis_id}).encode()
        options = [int(time.time() * 1000), message.queue_name, self.broker_id, self.heartbeat_timeout,
                   self.dead_message_ttl, 0, 1]  # fmt: skip
        self.scripts["dispatch"](keys=[self.namespace], args=["enqueue", *options, redis_id, stored], client=pipeline)

    def keep_alive(self) -> None:
        """Do nothing: connections to Redis have no heartbeats."""

    def age(self) -> float | None:
        """Return for how many seconds Redis has run, which may lose messages at a restart. None if it is down."""
        try:
            return float(self.client.info("server")["uptime_in_seconds"])
        except redis.RedisError:
            return None

    def check(self) -> None:
        """Raise Unavailable when Redis cannot be reached."""
        try:
            self.client.ping()
        except redis.RedisError as error:
            raise Unavailable(f"cannot connect to Redis: {error}") from error


def wake_key(queue_name: str) -> str:
    """Return the key of the list that the consumers of a queue block on."""
    return f"sangha:wake:{queue_name}"


class BlockingRedisConsumer(_RedisConsumer):
    """Blocks for a wake-up while the queue is empty, and for an acknowledgement while the prefetch is used up."""

    def __init__(self, broker: BlockingRedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, 0)  # type: ignore[no-untyped-call]  # a timeout of 0 disables the base class's polling
        self.block_time = min(timeout / 1000, MAX_BLOCK_TIME)
        self.acknowledged = threading.Event()

    def __next__(self) -> Any:
        message = super().__next__()  # type: ignore[no-untyped-call]
        if message is None:
            self._wait()
        return message

    def ack(self, message: Any) -> None:
        """Acknowledge a message and end the wait for an acknowledgement."""
        super().ack(message)  # type: ignore[no-untyped-call]
        self.acknowledged.set()

    def nack(self, message: Any) -> None:
        """Reject a message and end the wait for an acknowledgement."""
        super().nack(message)  # type: ignore[no-untyped-call]
        self.acknowledged.set()

    def _wait(self) -> None:
        try:
            if self.outstanding_message_count < self.prefetch:
                self.broker.client.blpop([wake_key(self.queue_name)], timeout=self.block_time)
            else:
                # Any command renews the consumer's heartbeat; without one its messages are given to other consumers.
                self.broker.do_qsize(self.queue_name)
                self.acknowledged.wait(self.block_time)
                self.acknowledged.clear()
        except redis.ConnectionError as error:
            raise ConnectionClosed(error) from None

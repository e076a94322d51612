"""Find quorum queues that have lost their leader.

RabbitMQ does not report it over AMQP: a passive declaration of such a queue succeeds, and a get hangs for 65 seconds
and then closes the connection with an internal error (observed with 3.10). A slow queue, such as one in an election or
on a busy disk, hangs too. So a queue counts as leaderless only after it has been silent for a long time and in several
probes, while a new quorum queue answered each time: then neither the network nor the server nor its disk is slow.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pika
from pika.adapters.blocking_connection import BlockingChannel

from models.platform.ids import new_id

log = logging.getLogger(__name__)

#: Seconds for an answer. An election takes one or two.
PROBE_TIMEOUT = 5.0

#: A queue is leaderless after so many seconds and probes without an answer.
SILENCE, SILENT_PROBES = 30.0, 3

#: Milliseconds after which RabbitMQ deletes the queue of a probe whose process died.
REFERENCE_TTL = 60_000

QueueState = Literal["answers", "silent", "leaderless"]


@dataclass(slots=True)
class Silence:
    """Successive probes without an answer, the first of which began at `since`."""

    since: float
    probes: int = 0


class QueueProbe:
    """Probes queues, and remembers for how long each has been silent."""

    def __init__(self, parameters: Any) -> None:
        self._parameters = parameters
        self._silences: dict[str, Silence] = {}

    def state(self, queue_name: str) -> QueueState:
        """Probe a queue. Takes up to twice PROBE_TIMEOUT."""
        started = time.monotonic()
        if self._try(queue_name, lambda channel: channel.basic_get(queue_name)) != "silence":
            self.forget(queue_name)
            return "answers"  # an error, too: the caller's next operation on the queue raises it
        if self._try("a new queue", use_new_queue) != "success":
            self.forget(queue_name)  # the server as a whole is slow, or lacks the majority of its nodes
            return "silent"
        silence = self._silences.setdefault(queue_name, Silence(started))
        silence.probes += 1
        lasts = time.monotonic() - silence.since
        log.warning("Queue %s has not answered for %.0f s, although the server does", queue_name, lasts)
        return "leaderless" if lasts >= SILENCE and silence.probes >= SILENT_PROBES else "silent"

    def forget(self, queue_name: str) -> None:
        """Forget how long a queue has been silent."""
        self._silences.pop(queue_name, None)

    def _try(self, name: str, use: Callable[[BlockingChannel], object]) -> Literal["success", "error", "silence"]:
        """Return how `use` ends within PROBE_TIMEOUT. It runs on a connection and thread of its own, since it may hang.

        A message that it gets is requeued when the connection closes.
        """
        outcomes: list[Literal["success", "error"]] = []

        def run() -> None:
            try:
                with pika.BlockingConnection(self._parameters) as connection:
                    use(connection.channel())
                outcomes.append("success")
            except (pika.exceptions.AMQPError, OSError) as error:
                log.debug("Probe of %s: %r", name, error)
                outcomes.append("error")

        thread = threading.Thread(target=run, name=f"probe {name}", daemon=True)
        thread.start()
        thread.join(PROBE_TIMEOUT)
        return outcomes[0] if outcomes else "silence"


def use_new_queue(channel: BlockingChannel) -> None:
    """Write to a new quorum queue, read from it and delete it. This needs an election and the server's disk."""
    name = new_id("probe")
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum", "x-expires": REFERENCE_TTL})
    channel.confirm_delivery()
    channel.basic_publish("", name, b"")
    channel.basic_get(name, auto_ack=True)
    channel.queue_delete(name)

"""How the web and clock doors reach the queue: they commit rows, then tell it so."""

from collections.abc import Sequence
from contextlib import suppress

import redis

from models.jobs.cancellation import Cancellation
from models.journal import journal
from models.journal.events import Event
from models.platform.database import Database
from models.platform.settings import Settings
from tasks.broker import build_broker
from tasks.relay import Relay


class Queue:
    """The door's end of the queue: a relay thread, and what must be said over Redis after a commit."""

    def __init__(
        self, settings: Settings, database: Database, client: redis.Redis, *, interval: float | None = None
    ) -> None:
        self._broker = build_broker(settings.broker_address)
        self._client = client
        self._relay = Relay(database, self._broker, interval=interval).start()

    def announce_job(self, job_id: str, opening: Sequence[Event]) -> None:
        """A job was committed: publish it, and begin its journal.

        Neither may fail the caller, for the job is accepted: what is lost here the sweeper and the worker make good.
        """
        self._relay.nudge()
        if opening:
            self._append(job_id, opening)

    def announce_cancellation(self, cancellation: Cancellation) -> None:
        """A cancel was committed: end the journals of what ended, tell the workers of what runs."""
        self._relay.nudge()
        for job_id, ending in cancellation.ended.items():
            self._append(job_id, [ending])
        with suppress(redis.RedisError):  # the worker's next heartbeat tells it
            journal.publish_cancellations(self._client, cancellation.running)

    def forget_journal(self, job_id: str) -> None:
        """A job was deleted: its journal goes too. Redis forgets by itself what it can't be told now."""
        with suppress(redis.RedisError):
            journal.delete(self._client, job_id)

    def nudge(self) -> None:
        """Something was committed that may be due."""
        self._relay.nudge()

    def check(self) -> None:
        """Raise Unavailable unless the broker answers."""
        self._broker.check()

    def close(self) -> None:
        """Stop the relay."""
        self._relay.stop()
        self._broker.close()

    def _append(self, job_id: str, events: Sequence[Event]) -> None:
        with suppress(redis.RedisError):  # the archive has these events; followers and the worker read them there
            journal.append(self._client, job_id, 0, events)

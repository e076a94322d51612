"""Announce committed rows to the queue: what the web process and the scheduler use of it."""

from collections.abc import Sequence
from contextlib import suppress

import redis

from models.access import rate_limits
from models.jobs.cancellation import Cancellation
from models.journal import journal, shards
from models.journal.events import Event
from models.journal.journal import Claim
from models.platform.database import Database
from models.platform.redis_cluster import Command
from models.platform.redis_memory import RedisMemory
from models.platform.settings import Settings
from tasks.broker import build_broker
from tasks.relay import Relay

#: Bytes of opening events that Redis gets. Those of a large request would fill it while the job waits, for up to a day.
MAX_OPENING = 65_536


class Queue:
    """Publishes jobs after their commit, and writes or deletes their journals in Redis."""

    def __init__(
        self, settings: Settings, database: Database, client: redis.Redis, *, interval: float | None = None
    ) -> None:
        self._broker = build_broker(settings.broker_address)
        self._client = client
        self._memory = RedisMemory(client)
        self._relay = Relay(database, self._broker, interval=interval).start()

    def announce_job(
        self, job_id: str, opening_events: Sequence[Event], lane: str, *, extra_commands: Sequence[Command] = ()
    ) -> None:
        """Publish a committed job of a lane and write the first events of its journal.

        `extra_commands` are Redis commands that are executed with the write, and left out where Redis has little room.

        Raises nothing when the broker or Redis is down, since the job is accepted: the sweeper publishes it and the
        worker writes the events.
        """
        self._relay.nudge(lane)
        if opening_events:
            self._open(job_id, opening_events, extra_commands)

    def announce_cancellation(self, cancellation: Cancellation, lane: str) -> None:
        """Write the last events of the jobs that a committed cancellation has ended, notify running workers, and return
        the tokens per minute that were drawn for turns that will not run.
        """
        self._relay.nudge(lane, *cancellation.lanes)
        for job_id, last_event in cancellation.ended.items():
            self._append(job_id, [last_event])
        with suppress(redis.RedisError):  # the worker's next heartbeat finds it
            journal.publish_cancellations(self._client, cancellation.running)
        with suppress(redis.RedisError):  # the bucket is full again within a minute
            for arguments in cancellation.drawn:
                rate_limits.give_back_of_job(self._client, cancellation.account_id, arguments)

    def forget_journal(self, job_id: str) -> None:
        """Delete the journal of a deleted job; while Redis is down, the journal is left to expire."""
        with suppress(redis.RedisError):
            journal.delete(self._client, job_id)

    def trim_announcements(self) -> None:
        """Delete old announcements of events from Redis. While Redis is down, nothing is deleted."""
        with suppress(redis.RedisError):
            shards.trim(self._client)

    def nudge(self, *lanes: str) -> None:
        """Publish the due jobs of some lanes, or of all: something was committed that may be due."""
        self._relay.nudge(*lanes)

    def broker_age(self) -> float | None:
        """Return the seconds since the start of a broker that may have lost messages then; otherwise None."""
        return self._broker.age()

    def check(self) -> None:
        """Raise Unavailable when the broker cannot be reached."""
        self._broker.check()

    def close(self) -> None:
        """Stop the relay and close the broker's connections."""
        self._relay.stop()
        self._broker.close()

    def _open(self, job_id: str, events: Sequence[Event], extra_commands: Sequence[Command]) -> None:
        """Write the first events of a journal; only to the archive if they are large or Redis has little room."""
        is_short = self._memory.is_short()
        if sum(len(event.data) for event in events) <= MAX_OPENING and not is_short:
            self._append(job_id, events, extra_commands)
            return
        with suppress(redis.RedisError):
            journal.open_archived(self._client, job_id, events, () if is_short else extra_commands)

    def _append(self, job_id: str, events: Sequence[Event], extra_commands: Sequence[Command] = ()) -> None:
        with suppress(redis.RedisError):  # the archive has these events: streams and the worker read them there
            journal.append(self._client, Claim(job_id), events, extra_commands=extra_commands)

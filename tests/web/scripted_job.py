"""A job whose events a test appends one by one, as its worker would."""

from collections.abc import Sequence

import redis

from models.jobs.attempts import Ending, claim, end
from models.jobs.jobs import Job, NewJob, enqueue
from models.journal import journal
from models.journal.archive import archive
from models.journal.events import Event, event
from models.platform.database import Database
from models.platform.ids import new_id


class ScriptedJob:
    """A claimed `turn.run` job with two opening events; `events` is its whole journal so far."""

    def __init__(self, database: Database, client: redis.Redis, account: str) -> None:
        self.database = database
        self.client = client
        self.account = account
        self.id = new_id("job")
        self.events = [event(0, "response.created", {}), event(1, "response.queued", {})]
        self.archived = 2
        with database.transaction() as connection:
            enqueue(connection, NewJob("turn.run", account, id=self.id, opening=self.events))
        journal.append(client, self.id, 0, self.events)
        self.job = self._claim()

    def append_deltas(self, count: int = 1, *, published: bool = True) -> list[Event]:
        """Append delta events in one batch. Unless `published`, Redis has them but subscribers are not notified."""
        start = len(self.events)
        deltas = [event(start + offset, "response.output_text.delta", {"delta": "w "}, 1) for offset in range(count)]
        self.events += deltas
        if published:
            journal.append(self.client, self.id, 1, deltas)
        else:
            for delta in deltas:
                self.client.xadd(
                    journal.stream_key(self.id), {"e": delta.data, "n": delta.tokens}, f"{delta.sequence + 1}-0"
                )
            self.client.hset(journal.hash_key(self.id), "last", len(self.events) - 1)
        return deltas

    def checkpoint(self) -> None:
        """Archive the events appended since the last checkpoint."""
        with self.database.transaction() as connection:
            archive(connection, self.id, self.events[self.archived :])
        self.archived = len(self.events)

    def rewind(self, to: int) -> None:
        """Discard the events from this sequence number on and append `rewound`."""
        self.events = [*self.events[:to], event(to, "sangha:journal.rewound", {})]
        journal.delete(self.client, self.id)
        journal.append(self.client, self.id, 2, self.events)

    def end(self, *, published: bool = True) -> None:
        """End the job with its last event. Unless `published`, the event is in Postgres only."""
        last = event(len(self.events), "response.completed", {"response": {"id": "resp_told"}})
        self.events.append(last)
        with self.database.transaction() as connection:
            end(connection, self.job, Ending("completed", [last]), self.events[self.archived :])
        if published:
            journal.append(self.client, self.id, 1, [last])

    def forget_journal(self) -> None:
        """Delete the job's journal from Redis."""
        journal.delete(self.client, self.id)

    def _claim(self) -> Job:
        with self.database.connection() as connection:
            job = claim(connection, self.id, message_id="a message", worker=f"worker of {self.id}")
        assert job is not None
        return job


def numbers(events: Sequence[Event]) -> list[int]:
    """Return the sequence numbers of events."""
    return [event.sequence for event in events]

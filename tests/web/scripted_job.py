"""A job whose events a test tells one by one, in the place of its worker."""

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
    """A turn's job with two events to begin with; `told` is the whole journal so far."""

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
        """More events, together. Those that are not `heard` reach Redis, but not those who follow."""
        begin = len(self.events)
        said = [event(begin + place, "response.output_text.delta", {"delta": "w "}, 1) for place in range(count)]
        self.events += said
        if published:
            journal.append(self.client, self.id, 1, said)
        else:
            for one in said:
                self.client.xadd(journal.stream_key(self.id), {"e": one.data, "n": one.tokens}, f"{one.sequence + 1}-0")
            self.client.hset(journal.key(self.id), "last", len(self.events) - 1)
        return said

    def checkpoint(self) -> None:
        """Archive what was said so far."""
        with self.database.transaction() as connection:
            archive(connection, self.id, self.events[self.archived :])
        self.archived = len(self.events)

    def rewind(self, to: int) -> None:
        """Take back what was said from a number on."""
        self.events = [*self.events[:to], event(to, "sangha.journal.rewound", {})]
        journal.forget(self.client, self.id)
        journal.append(self.client, self.id, 2, self.events)

    def end(self, *, published: bool = True) -> None:
        """The last event; Redis may not be told of it."""
        last = event(len(self.events), "response.completed", {"response": {"id": "resp_told"}})
        self.events.append(last)
        with self.database.transaction() as connection:
            end(connection, self.job, Ending("completed", [last]), self.events[self.archived :])
        if published:
            journal.append(self.client, self.id, 1, [last])

    def forget_journal(self) -> None:
        """Redis forgets."""
        journal.forget(self.client, self.id)

    def _claim(self) -> Job:
        with self.database.connection() as connection:
            job = claim(connection, self.id, message_id="a message", worker=f"worker of {self.id}")
        assert job is not None
        return job


def numbers(events: Sequence[Event]) -> list[int]:
    """The sequence numbers of events."""
    return [event.sequence for event in events]

"""A job whose events a test appends one by one, as its worker would."""

from collections.abc import Sequence

import redis

from models.jobs.attempts import Ending, claim, end
from models.jobs.jobs import Job, NewJob, enqueue
from models.journal import journal
from models.journal.archive import archive, read_archive
from models.journal.events import Event, event
from models.journal.journal import Claim
from models.journal.shards import SHARDS
from models.journal.shared_fields import complete_events, first_event, without_fields
from models.platform.database import Database
from models.platform.ids import new_id


class ScriptedJob:
    """A claimed `turn.run` job with two opening events; `events` is its whole journal so far.

    The events after the first one have no `instructions`, if there are some.
    """

    def __init__(self, database: Database, client: redis.Redis, account: str, instructions: str = "") -> None:
        self.database = database
        self.client = client
        self.account = account
        self.id = new_id("job")
        self.shared = {"instructions": instructions} if instructions else {}
        created, self.places = first_event("response.created", self.shared)
        self.events = [created, self._event(1, "response.queued")]
        self.archived = 2
        with database.transaction() as connection:
            enqueue(connection, NewJob("turn.run", account, id=self.id, opening=self.events))
        journal.append(client, Claim(self.id), self.events)
        self.job = self._claim()
        self.attempt = 1

    @classmethod
    def of_response(cls, database: Database, client: redis.Redis, account: str, job_id: str) -> "ScriptedJob":
        """Claim the queued job of a response."""
        scripted = cls.__new__(cls)
        scripted.database, scripted.client, scripted.account, scripted.id = database, client, account, job_id
        scripted.shared, scripted.places = {}, {}
        with database.connection() as connection:
            scripted.events = read_archive(connection, job_id).events
        scripted.archived = len(scripted.events)
        scripted.job, scripted.attempt = scripted._claim(), 1
        return scripted

    def append(self, type_: str, **payload: object) -> None:
        """Append an event."""
        self._append([event(len(self.events), type_, payload)])

    def append_deltas(self, count: int = 1, *, published: bool = True) -> list[Event]:
        """Append delta events in one batch. Unless `published`, Redis has them but subscribers are not notified."""
        start = len(self.events)
        deltas = [event(start + offset, "response.output_text.delta", {"delta": "w "}, 1) for offset in range(count)]
        self._append(deltas, publish=published)
        return deltas

    def append_texts(self, texts: Sequence[str]) -> None:
        """Append a delta for each text."""
        start, type_ = len(self.events), "response.output_text.delta"
        self._append([event(start + index, type_, {"delta": text}, 1) for index, text in enumerate(texts)])

    def append_large(self) -> None:
        """Append an event that is too large for the shard streams."""
        self._append([event(len(self.events), "response.large", {"text": "x" * 70_000})])

    def checkpoint(self) -> None:
        """Archive the events appended since the last checkpoint."""
        with self.database.transaction() as connection:
            archive(connection, self.id, self.events[self.archived :])
        self.archived = len(self.events)

    def rewind(self, to: int, *, published: bool = True) -> None:
        """Discard the events from this sequence number on and append `rewound`, as the next attempt does."""
        with self.database.connection() as connection:
            connection.execute("UPDATE jobs SET rewound_at = %s WHERE id = %s", (to, self.id))
        self.events = self.events[:to]
        self.attempt += 1
        journal.append(self.client, self._claim_of_attempt(), self.events, replace=True, shards=0)
        self.announce_rewind(published=published)

    def announce_rewind(self, *, published: bool = True) -> None:
        """Append the event that announces a rewind."""
        data = {"job_id": self.id, "attempt": self.attempt}
        self._append([event(len(self.events), "sangha:journal.rewound", data)], publish=published)

    def end(self, *, published: bool = True) -> None:
        """End the job with its last event. Unless `published`, the event is in Postgres only."""
        last = self._event(len(self.events), "response.completed", id="resp_told")
        self.events.append(last)
        with self.database.transaction() as connection:
            end(connection, self.job, Ending("completed", [last]), self.events[self.archived :])
        if published:
            journal.append(self.client, self._claim_of_attempt(), [last])

    def claim_again(self) -> None:
        """Begin the next attempt, which continues the journal."""
        self.job = self._claim()
        self.attempt += 1

    def forget_journal(self) -> None:
        """Delete the job's journal from Redis."""
        journal.delete(self.client, self.id)

    def clients_events(self) -> list[Event]:
        """Return the events as clients receive them."""
        return complete_events(self.events, self.events[0])

    def _event(self, sequence: int, type_: str, **fields: str) -> Event:
        return event(sequence, type_, without_fields({"response": {**fields, **self.shared}}, self.places))

    def _append(self, events: Sequence[Event], *, publish: bool = True) -> None:
        self.events += events
        journal.append(self.client, self._claim_of_attempt(), events, shards=SHARDS if publish else 0)

    def _claim_of_attempt(self) -> Claim:
        return Claim(self.id, self.attempt)

    def _claim(self) -> Job:
        with self.database.connection() as connection:
            job = claim(connection, self.id, message_id="a message", worker=f"worker of {self.id}")
        assert job is not None
        return job


def numbers(events: Sequence[Event]) -> list[int]:
    """Return the sequence numbers of events."""
    return [event.sequence for event in events]


def forget_rewind(database: Database, scripted: ScriptedJob) -> None:
    """Lose the row's note of a rewind, as a failover of Postgres does."""
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET rewound_at = NULL WHERE id = %s", (scripted.id,))

"""Write journals: attempts append to memory, and one thread per process sends the events to Redis.

A write never waits for Redis. Under low load each event is sent at once. Under high load batches are some milliseconds
apart, each with all journals of the process in one round trip, and consecutive text deltas are merged. A journal keeps
its events since the last checkpoint and sends them again if Redis loses them.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import redis

from models.journal import journal
from models.journal.events import Event, event
from models.journal.growing_delta import GrowingDelta
from models.journal.journal import Claim, Fence
from models.journal.shards import SHARDS, announcement
from models.journal.token_pace import TokenPace
from models.platform.errors import Fenced, Unavailable
from models.platform.redis_client import is_cluster
from models.platform.redis_cluster import Command, execute_all

log = logging.getLogger(__name__)

#: Seconds between batches: if there is only more text of answers that have begun, and otherwise.
TEXT_INTERVAL = 0.04
INTERVAL = 0.004

#: Seconds between retries while Redis is unavailable.
RETRY_INTERVAL = 0.2

#: Most commands that wait for the next batch.
MAX_COMMANDS = 1000


class Journal:
    """The journal of one attempt. Thread-safe.

    claim          the attempt's right to write
    next_sequence  the first sequence number of this attempt
    unarchived     earlier events that only Redis has; this attempt archives them with its own
    pace           how fast the attempt generates

    The event with the first tokens of the job has the seconds since its creation, for later attempts.
    """

    def __init__(
        self,
        claim: Claim,
        next_sequence: int,
        writer: "JournalWriter",
        unarchived: Sequence[Event] = (),
        pace: TokenPace | None = None,
    ) -> None:
        self.claim = claim
        self.fenced = False
        self.tokens = 0
        self._next = next_sequence
        self._written: list[Event] = []
        self._earlier = list(unarchived)
        self._retained: list[Event] = list(unarchived)  # events that the archive or Redis lacks
        self._sent = next_sequence - 1  # last sequence number confirmed by Redis
        self._archived = next_sequence - 1 - len(unarchived)  # last sequence number in the archive
        self._delta: GrowingDelta | None = None
        self._lock = threading.Lock()
        self._writer = writer
        self.pace = pace or TokenPace()

    def write(self, type_: str, payload: Mapping[str, Any]) -> Event:
        """Write an event. Raises Fenced if a newer attempt exists."""
        with self._lock:
            self._check_fence()
            self._seal()
            written = self._append(type_, payload)
        self._writer.schedule(self)
        return written

    def write_atomically(self, events: Sequence[tuple[str, Mapping[str, Any]]], tokens: int) -> None:
        """Write events with `tokens` generated tokens: Redis and the archive get all or none. Raises Fenced."""
        with self._lock:
            self._check_fence()
            self._seal()
            *others, (type_, payload) = events
            for other in others:
                self._append(*other)
            self.tokens += tokens
            self._append(type_, {**payload, **self.pace.add(tokens)}, tokens)
        self._writer.schedule(self)

    def write_text(
        self,
        type_: str,
        payload: Mapping[str, Any],
        text: str,
        tokens: int,
        logprobs: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write a `delta` of `tokens` tokens, merged with the same event directly before it. Raises Fenced.

        `logprobs` replace those of the payload.
        """
        with self._lock:
            self._check_fence()
            if self._delta is not None and not self._delta.is_alike(type_, payload):
                self._seal()
            if self._delta is None:
                self._delta = GrowingDelta(type_, payload)
            self._delta.add(text, tokens, logprobs)
            first = self.tokens == 0
            self.tokens += tokens
            self._delta.fields.update(self.pace.add(tokens))
        self._writer.schedule(self, text=not first)

    def compose_endings(self, endings: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Event]:
        """Number the last events without writing them: they are valid only after the commit."""
        with self._lock:
            self._seal()
            composed = [event(self._next + index, *ending) for index, ending in enumerate(endings)]
        return [replace(ending, ending=True) for ending in composed]

    def append_endings(self, endings: Sequence[Event]) -> None:
        """Write the events that `compose_endings` numbered, after the commit. They end the journal."""
        with self._lock:
            self._retained += endings
            self._next = endings[-1].sequence + 1
        self._writer.schedule(self)

    def unarchived(self) -> list[Event]:
        """Return the events since the last checkpoint."""
        with self._lock:
            self._seal()
            return [event for event in self._retained if event.sequence > self._archived]

    def mark_archived(self, last: int) -> None:
        """Note that the events up to `last` are archived, and drop those that Redis has too."""
        with self._lock:
            self._archived = max(self._archived, last)
            self._retained = [event for event in self._retained if event.sequence > min(self._archived, self._sent)]

    @property
    def kept_bytes(self) -> int:
        """The bytes of the events that are kept to be archived."""
        return sum(len(event.data) for event in [*self._earlier, *self._written])

    @property
    def next_sequence(self) -> int:
        """The sequence number of the next event."""
        with self._lock:
            self._seal()
            return self._next

    def archivable(self) -> list[Event]:
        """Return all events that this attempt has to archive, also those that it has archived already."""
        with self._lock:
            self._seal()
            return [*self._earlier, *self._written]

    def attempt_events(self) -> list[Event]:
        """Return all events of this attempt."""
        with self._lock:
            self._seal()
            return list(self._written)

    def unsent(self) -> list[Event]:
        """Return the events that Redis has not confirmed."""
        with self._lock:
            self._seal()
            return [event for event in self._retained if event.sequence > self._sent]

    def retained_events(self) -> list[Event]:
        """Return the events that can be sent again."""
        with self._lock:
            return list(self._retained)

    def mark_sent(self, last: int) -> None:
        """Note that Redis has the events up to `last`."""
        with self._lock:
            self._sent = max(self._sent, last)

    def _append(self, type_: str, payload: Mapping[str, Any], tokens: int = 0) -> Event:
        written = event(self._next, type_, payload, tokens)
        self._written.append(written)
        self._retained.append(written)
        self._next += 1
        return written

    def _seal(self) -> None:
        if self._delta is not None:
            text, self._delta = self._delta, None
            self._append(text.type, text.complete_payload, text.tokens)

    def _check_fence(self) -> None:
        if self.fenced:
            raise Fenced(f"Attempt {self.claim.attempt} of {self.claim.job_id} has been superseded.")


class JournalWriter:
    """The thread that sends the journals of a process to Redis, and announces the events in one of `shards` streams.

    `may_write(job_id, attempt, claim_id)` checks in Postgres whether a claim that Redis refuses is the current one.
    """

    def __init__(
        self, client: redis.Redis, may_write: Callable[[str, int, UUID | None], bool], *, shards: int = SHARDS
    ) -> None:
        self._client = client
        self._shards = shards
        self._tagged = is_cluster(client)
        self._announcements: list[Command] = []
        self._may_write = may_write
        self._waiting: set[Journal] = set()
        self._commands: deque[Command] = deque(maxlen=MAX_COMMANDS)
        self._condition = threading.Condition()
        self._urgent = False
        self._busy = False
        self._running = True
        self._last = 0.0
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    @property
    def thread(self) -> threading.Thread:
        """The thread that sends events to Redis."""
        return self._thread

    def schedule(self, written: Journal, *, text: bool = False) -> None:
        """Send a journal's new events with the next batch. `text`: they only continue the text of an answer."""
        if text and written in self._waiting:
            return  # without the lock: the batch is taken before its journals are read
        with self._condition:
            self._waiting.add(written)
            if not (text or self._urgent):
                self._urgent = True
                self._condition.notify_all()
            elif len(self._waiting) == 1:
                self._condition.notify_all()

    def send_with_next_batch(self, command: Command) -> None:
        """Send a command with the next batch. Its reply is ignored, and it is lost if Redis is unavailable."""
        self._commands.append(command)

    def drain(self, timeout: float = 5.0) -> bool:
        """Wait until everything is sent. Returns False if that takes longer than `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """Send the remaining events and stop the thread."""
        self.drain(timeout)
        self._running = False
        with self._condition:
            self._condition.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._running:
            batch = self._next_batch()
            try:
                self._send(batch)
            except (redis.RedisError, OSError, Unavailable) as error:
                log.warning("Cannot write journals to Redis, retrying: %s", error)
                self._reschedule(batch)
            except Exception:
                log.exception("Cannot write journals to Redis, retrying")
                self._reschedule(batch)
            finally:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()

    def _next_batch(self) -> list[Journal]:
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or not self._running)
            # Text waits for TEXT_INTERVAL, or until an urgent event joins it.
            self._condition.wait_for(lambda: self._urgent, self._last + TEXT_INTERVAL - time.monotonic())
            self._condition.wait_for(lambda: not self._running, self._last + INTERVAL - time.monotonic())
            batch, self._waiting = list(self._waiting), set()
            self._urgent, self._busy = False, True
            self._last = time.monotonic()
            return batch

    def _reschedule(self, batch: Sequence[Journal]) -> None:
        time.sleep(RETRY_INTERVAL)
        with self._condition:
            self._waiting.update(batch)

    def _send(self, batch: Sequence[Journal]) -> None:
        unsent_events = [(written, unsent) for written in batch if not written.fenced and (unsent := written.unsent())]
        if not unsent_events:
            return
        appends = [self._append_command(written.claim, unsent) for written, unsent in unsent_events]
        replies = execute_all(self._client, [*appends, *self._take_commands()])
        failure: Exception | None = None
        for (written, unsent), reply in zip(unsent_events, replies, strict=False):
            try:
                self._handle_reply(written, unsent, reply)
            except Exception as error:  # noqa: BLE001 - the other journals must be processed
                failure = error
        self._announce()
        if failure is not None:
            raise failure

    def _append_command(self, claim: Claim, events: Sequence[Event]) -> Command:
        arguments = journal.append_command(claim, events, shards=self._shards, tagged=self._tagged)
        return Command(arguments[1], ["EVALSHA", journal.APPEND_SHA, *arguments])

    def _take_commands(self) -> list[Command]:
        commands = []
        while self._commands:
            commands.append(self._commands.popleft())
        return commands

    def _announce(self) -> None:
        """Send a cluster's shards what was appended. If that fails, followers notice the gap."""
        if self._announcements:
            commands, self._announcements = self._announcements, []
            execute_all(self._client, commands)

    def _handle_reply(self, written: Journal, unsent: Sequence[Event], reply: Any) -> None:
        if isinstance(reply, redis.exceptions.NoScriptError):
            self._client.script_load(journal.APPEND)
            self.schedule(written)
        elif isinstance(reply, Exception):
            raise reply
        elif (result := journal.parse_append_reply(reply)).status == "ok":
            written.mark_sent(result.last)
            if self._tagged and (new := result.to_announce(written.claim, unsent)):
                command = announcement(written.claim.job_id, new, self._shards)
                self._announcements.append(Command(command[1], command))
        else:
            self._recover(written, result.status)

    def _recover(self, written: Journal, status: journal.AppendStatus) -> None:
        """Write the retained events again, if Postgres knows the claim: Redis lost them, or has another claim's."""
        if not self._may_write(*written.claim):
            written.fenced = True
            return
        retained = written.retained_events()
        result = journal.append(self._client, written.claim, retained, Fence.SEIZE, replace=True, shards=self._shards)
        written.mark_sent(result.last)
        reason, first = "lost" if status == "lost" else "has another claim on", retained[0].sequence
        log.warning("Redis %s the journal of %s: writing it again from event %d", reason, written.claim.job_id, first)

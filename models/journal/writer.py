"""Writing journals: attempts write into memory, one thread a process carries it to Redis.

A write never waits for Redis. When little is going on each event leaves at once. Under load batches are some
milliseconds apart, each with all journals of the process in one round trip, and the text that has gathered meanwhile
goes as one delta. A journal keeps what it wrote since its last checkpoint, so that it can write it again should Redis
forget.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from models.journal import journal
from models.journal.events import Event, event
from models.platform.errors import Fenced, Unavailable

log = logging.getLogger(__name__)

#: Seconds from one batch to the next: with only more text of answers that have begun, and with anything else.
TEXT_INTERVAL = 0.04
INTERVAL = 0.004

#: Seconds between two tries while Redis does not answer.
RETRY_INTERVAL = 0.2

#: Commands that wait to be sent along, at most.
MOST_ALONG = 1000


class Journal:
    """The journal of one attempt. Its methods are safe to call from any thread.

    `next_sequence` is where this attempt begins to write; all before it is history. `unarchived` is the part of the
    history that only Redis holds: this attempt will archive it with its own events.
    """

    def __init__(
        self,
        job_id: str,
        attempt: int,
        next_sequence: int,
        writer: "JournalWriter",
        unarchived: Sequence[Event] = (),
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.fenced = False
        self.tokens = 0
        self._next = next_sequence
        self._written: list[Event] = []
        self._held: list[Event] = list(unarchived)  # what the archive or Redis still lack
        self._sent = next_sequence - 1  # the last sequence number that Redis has confirmed
        self._archived = next_sequence - 1 - len(unarchived)  # the last one that the archive has
        self._open_text: _OpenText | None = None
        self._lock = threading.Lock()
        self._writer = writer

    def write(self, type_: str, payload: Mapping[str, Any]) -> Event:
        """Write an event. Raises Fenced once a later attempt writes."""
        with self._lock:
            self._check_fence()
            self._seal()
            written = self._append(type_, payload)
        self._writer.schedule(self)
        return written

    def write_atomically(self, events: Sequence[tuple[str, Mapping[str, Any]]], tokens: int) -> None:
        """Write events that no crash can part: Redis and the archive get all of them, or none. Raises Fenced.

        They carry `tokens` generated tokens.
        """
        with self._lock:
            self._check_fence()
            self._seal()
            *others, (type_, payload) = events
            for other in others:
                self._append(*other)
            self._append(type_, payload, tokens)
            self.tokens += tokens
        self._writer.schedule(self)

    def write_text(self, type_: str, payload: Mapping[str, Any], text: str, tokens: int) -> None:
        """Write text that may join with its like that directly follows: a `delta` of `tokens` tokens. Raises Fenced."""
        with self._lock:
            self._check_fence()
            if self._open_text is not None and not self._open_text.is_alike(type_, payload):
                self._seal()
            if self._open_text is None:
                self._open_text = _OpenText(type_, payload)
            self._open_text.add(text, tokens)
            first = self.tokens == 0
            self.tokens += tokens
        self._writer.schedule(self, text=not first)

    def compose(self, endings: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Event]:
        """Number the last events without writing them: they count only once Postgres has them."""
        with self._lock:
            self._seal()
            return [event(self._next + place, type_, payload) for place, (type_, payload) in enumerate(endings)]

    def close(self, endings: Sequence[Event]) -> None:
        """Write the events that `compose` numbered, after the commit. The journal ends with them."""
        with self._lock:
            self._held += endings
            self._next = endings[-1].sequence + 1
        self._writer.schedule(self)

    def unarchived(self) -> list[Event]:
        """What was written since the last checkpoint."""
        with self._lock:
            self._seal()
            return [event for event in self._held if event.sequence > self._archived]

    def mark_archived(self, last: int) -> None:
        """The archive has everything up to a sequence number: only what Redis lacks need be held."""
        with self._lock:
            self._archived = max(self._archived, last)
            self._held = [event for event in self._held if event.sequence > min(self._archived, self._sent)]

    @property
    def next_sequence(self) -> int:
        """The number that the next event will have."""
        with self._lock:
            self._seal()
            return self._next

    def written(self) -> list[Event]:
        """All that this attempt has written."""
        with self._lock:
            self._seal()
            return list(self._written)

    def unsent(self) -> list[Event]:
        """What Redis has not confirmed yet."""
        with self._lock:
            self._seal()
            return [event for event in self._held if event.sequence > self._sent]

    def retained_events(self) -> list[Event]:
        """All that can be written again."""
        with self._lock:
            return list(self._held)

    def mark_sent(self, last: int) -> None:
        """Redis has everything up to this sequence number."""
        with self._lock:
            self._sent = max(self._sent, last)

    def _append(self, type_: str, payload: Mapping[str, Any], tokens: int = 0) -> Event:
        written = event(self._next, type_, payload, tokens)
        self._written.append(written)
        self._held.append(written)
        self._next += 1
        return written

    def _seal(self) -> None:
        if self._open_text is not None:
            text, self._open_text = self._open_text, None
            self._append(text.type, {**text.payload, "delta": "".join(text.parts)}, text.tokens)

    def _check_fence(self) -> None:
        if self.fenced:
            raise Fenced(f"attempt {self.attempt} of {self.job_id} is over")


class _OpenText:
    """A delta that still grows."""

    __slots__ = ("parts", "payload", "tokens", "type")

    def __init__(self, type_: str, payload: Mapping[str, Any]) -> None:
        self.type = type_
        self.payload = payload
        self.parts: list[str] = []
        self.tokens = 0

    def is_alike(self, type_: str, payload: Mapping[str, Any]) -> bool:
        return self.type == type_ and (self.payload is payload or self.payload == payload)

    def add(self, text: str, tokens: int) -> None:
        self.parts.append(text)
        self.tokens += tokens


class JournalWriter:
    """The thread that carries the journals of a process to Redis.

    `may_write(job_id, attempt)` asks Postgres whether a journal is an attempt's to write: Redis, when it has forgotten
    the fence, can't tell.
    """

    def __init__(self, client: redis.Redis, may_write: Callable[[str, int], bool]) -> None:
        self._client = client
        self._may_write = may_write
        self._waiting: set[Journal] = set()
        self._along: deque[Sequence[Any]] = deque(maxlen=MOST_ALONG)
        self._condition = threading.Condition()
        self._urgent = False
        self._busy = False
        self._running = True
        self._last = 0.0
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def schedule(self, written: Journal, *, text: bool = False) -> None:
        """A journal has something to send; `text` when that is only more text of an answer that has begun."""
        with self._condition:
            self._waiting.add(written)
            if not (text or self._urgent):
                self._urgent = True
                self._condition.notify_all()
            elif len(self._waiting) == 1:
                self._condition.notify_all()

    def send_with_next_batch(self, command: Sequence[Any]) -> None:
        """A command to go with the next batch. Nobody waits for its answer, and what can't be sent is lost."""
        self._along.append(command)

    def drain(self, timeout: float = 5.0) -> bool:
        """Wait until all is sent; False when the time was not enough."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """Send what is left and end the thread."""
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
                log.warning("the journal can't be written for now: %s", error)
                self._again(batch)
            except Exception:
                log.exception("the journal can't be written for now")
                self._again(batch)
            finally:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()

    def _next_batch(self) -> list[Journal]:
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or not self._running)
            # Text waits until its time has come or something joins it that is worth a batch of its own.
            self._condition.wait_for(lambda: self._urgent, self._last + TEXT_INTERVAL - time.monotonic())
            self._condition.wait_for(lambda: not self._running, self._last + INTERVAL - time.monotonic())
            batch, self._waiting = list(self._waiting), set()
            self._urgent, self._busy = False, True
            self._last = time.monotonic()
            return batch

    def _again(self, batch: Sequence[Journal]) -> None:
        time.sleep(RETRY_INTERVAL)
        with self._condition:
            self._waiting.update(batch)

    def _send(self, batch: Sequence[Journal]) -> None:
        pieces = [(written, unsent) for written in batch if not written.fenced and (unsent := written.unsent())]
        if not pieces:
            return
        pipeline = self._client.pipeline(transaction=False)
        for written, unsent in pieces:
            pipeline.evalsha(journal.APPEND_SHA, *journal.append_command(written.job_id, written.attempt, unsent))
        while self._along:
            pipeline.execute_command(*self._along.popleft())
        failure: Exception | None = None
        for (written, _), reply in zip(pieces, pipeline.execute(raise_on_error=False), strict=False):
            try:
                self._conclude(written, reply)
            except Exception as error:  # noqa: BLE001 - one journal's trouble is not the others'
                failure = error
        if failure is not None:
            raise failure

    def _conclude(self, written: Journal, reply: Any) -> None:
        if isinstance(reply, redis.exceptions.NoScriptError):
            self._client.script_load(journal.APPEND)
            self.schedule(written)
        elif isinstance(reply, Exception):
            raise reply
        elif (result := journal.parse_append_reply(reply)).status == "fenced":
            written.fenced = True
        elif result.status == "lost":
            self._repair(written)
        else:
            written.mark_sent(result.last)

    def _repair(self, written: Journal) -> None:
        """Redis has forgotten: write all that is held again, if it is the attempt's to write."""
        if not self._may_write(written.job_id, written.attempt):
            written.fenced = True
            return
        held = written.retained_events()
        result = journal.append(self._client, written.job_id, written.attempt, held)
        written.fenced = result.status == "fenced"
        written.mark_sent(result.last)
        log.warning("the journal of %s was lost and is written again from %d", written.job_id, held[0].sequence)

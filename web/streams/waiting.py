"""Report on streams why their turn waits, until an attempt at it begins.

A report is no event of a journal: it has no id and no number, so that resuming a stream is not affected. Streams
that show all events get `sangha:engine.waiting`, those of OpenAI's types a comment. One read a second serves all
streams of the process.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import orjson

from models.journal.events import WAITING
from models.platform.errors import Unavailable
from models.serving.waiting_turns import WaitingTurn
from pipelines.chat.response_types import WaitingObject
from web.http.threads import run_in_thread
from web.streams.sse import EventStream, Frame, OpenStreams

log = logging.getLogger(__name__)

#: Seconds between two reads, and the most of the time that reads may take.
READ_INTERVAL, MAX_SHARE = 1.0, 0.05

#: Seconds after which a stream is looked at first, between two reports at least, and after which one whose turn does
#: not wait is looked at again: its worker may have died.
FIRST_AFTER, REPORT_INTERVAL, CHECK_INTERVAL = 0.5, 3.0, 5.0

#: Smaller changes of the predicted wait, in seconds and as a share, are not reported.
SMALLEST_CHANGE, SMALLEST_SHARE = 1.0, 0.2

#: Reports that are written before other tasks may run.
BATCH = 100

ReadWaiting = Callable[[Collection[str]], Mapping[str, WaitingTurn]]
Encode = Callable[[str, WaitingTurn], Frame]


class Wait:
    """The wait of one stream's turn.

    due_at    when it is looked at next
    reported  what was reported last; None: nothing since its turn last ran
    ran       its turn did not wait when it was looked at
    written   the frames of the stream when it was looked at
    """

    __slots__ = ("due_at", "encode", "job_id", "ran", "reported", "reported_at", "written")

    def __init__(self, job_id: str, encode: Encode) -> None:
        self.job_id = job_id
        self.encode = encode
        self.due_at = time.monotonic() + FIRST_AFTER
        self.reported: WaitingTurn | None = None
        self.reported_at = 0.0
        self.ran = False
        self.written = 0

    def is_due(self, stream: EventStream, now: float) -> bool:
        """Return whether to look at the turn now. One that has sent events since it ran last is still running."""
        if now < self.due_at:
            return False
        runs = self.ran and self.written != stream.written
        self.written = stream.written
        if runs:
            self.due_at = now + CHECK_INTERVAL
        return not runs

    def update(self, turn: WaitingTurn | None, now: float) -> bool:
        """Note what the turn waits for. Returns whether to report it."""
        self.ran = turn is None
        if turn is None:
            self.due_at = now + CHECK_INTERVAL
            self.reported = None
            return False
        if self.reported is not None and (now < self.reported_at + REPORT_INTERVAL or not differs(turn, self.reported)):
            return False
        self.reported, self.reported_at = turn, now
        return True

    def retract_report(self) -> None:
        """Note that the last report was not sent: an event came first, or the client is slow."""
        self.reported = None


def differs(turn: WaitingTurn, reported: WaitingTurn) -> bool:
    """Return whether a turn's wait differs enough from what was reported last."""
    if (turn.reason, turn.position) != (reported.reason, reported.position):
        return True
    now, before = turn.predicted_wait, reported.predicted_wait
    if now is None or before is None:
        return now is not before
    return abs(now - before) >= max(SMALLEST_CHANGE, SMALLEST_SHARE * before)


class WaitingStreams:
    """Reports on the open streams of a process what their turns wait for."""

    def __init__(self, streams: OpenStreams, read: ReadWaiting) -> None:
        self._streams = streams
        self._read = read

    async def run(self) -> None:
        """Report until the task is cancelled."""
        pause = READ_INTERVAL
        while True:
            await asyncio.sleep(pause)
            begun = time.monotonic()
            try:
                await self.report()
            except Unavailable:
                log.debug("Cannot read what turns wait for; trying again")
            except Exception:
                log.exception("Cannot read what turns wait for; trying again")
            pause = max(READ_INTERVAL, (time.monotonic() - begun) / MAX_SHARE)

    async def report(self) -> None:
        """Read once, and report on the streams that are due. Raises Unavailable."""
        now = time.monotonic()
        due = [(stream, stream.wait) for stream in self._streams if stream.wait and stream.wait.is_due(stream, now)]
        if not due:
            return
        waiting = await run_in_thread(self._read, {wait.job_id for _, wait in due})
        for start in range(0, len(due), BATCH):
            _report(due[start : start + BATCH], waiting)
            await asyncio.sleep(0)


def _report(due: Sequence[tuple[EventStream, Wait]], waiting: Mapping[str, WaitingTurn]) -> None:
    now = time.monotonic()
    for stream, wait in due:
        turn = waiting.get(wait.job_id)
        if wait.update(turn, now) and turn is not None:
            stream.write_between(wait.encode(wait.job_id, turn), wait.written)


def waiting_object(turn: WaitingTurn) -> WaitingObject:
    """Return the fields of an event or an API object."""
    wait = None if turn.predicted_wait is None else round(turn.predicted_wait, 1)
    return {"position": turn.position, "predicted_wait": wait, "reason": turn.reason}


def as_event(job_id: str, turn: WaitingTurn) -> Frame:
    """Encode an event without id and number, which leaves a client's last id as it is."""
    return _frame({"type": WAITING, **waiting_object(turn)})


def as_tree_event(job_id: str, turn: WaitingTurn) -> Frame:
    """Encode an event of a tree's stream."""
    return _frame({"job": job_id, "type": WAITING, **waiting_object(turn)})


def as_comment(job_id: str, turn: WaitingTurn) -> Frame:
    """Encode a comment, of one line: see `web.streams.sse.PING`."""
    fields = " ".join(f"{name}={value}" for name, value in waiting_object(turn).items() if value is not None)
    return f": waiting {fields}\n".encode()


def _frame(payload: Mapping[str, object]) -> Frame:
    return b"event: %b\ndata: %b\n\n" % (WAITING.encode(), orjson.dumps(payload))

"""A running attempt, as the pipeline that does its work sees it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from models.jobs.attempts import Ending, store_progress, store_rewind
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import Job, NewJob
from models.journal import journal
from models.journal.archive import ArchivedEvents, read_archive
from models.journal.events import REWOUND, Event
from models.journal.writer import Journal, JournalWriter
from models.platform.database import Database
from models.platform.errors import Cancelled, Fenced, JobError, Released, TimeLimitExceeded

StopReason = Literal["cancelled", "released", "overtaken"]


@dataclass(frozen=True, slots=True)
class WaitForChildren:
    """The attempt ends here; the job goes on when these children have ended."""

    children: Sequence[NewJob]


#: What a pipeline returns: how its job ends, or what it waits for.
Outcome = Ending | WaitForChildren


@dataclass(frozen=True, slots=True)
class Handler:
    """The pipeline of a kind of work.

    run  does the work of an attempt
    end  says how journal and records end where `run` does not: cancelled, failed or dead, with `{"code", "message"}`
    """

    run: Callable[["Attempt"], Outcome]
    end: Callable[["Attempt", Literal["cancelled", "failed", "dead"], Mapping[str, Any] | None], Ending]


def plain_ending(
    attempt: "Attempt",
    state: Literal["completed", "cancelled", "failed", "dead"],
    error: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
) -> Ending:
    """The ending of a job with nothing to tell but its state."""
    payload = {"job_id": attempt.job.id, "error": error, "result": result}
    events = attempt.journal.compose([(f"sangha:job.{state}", payload)])
    return Ending(state, events, result=result, error=error)


@dataclass(eq=False, slots=True)
class Attempt:
    """One try at a job, by a thread of a worker.

    history  what earlier attempts journalled, and `tokens` how many generated tokens that carries
    """

    job: Job
    database: Database
    journal: Journal
    history: list[Event] = field(default_factory=list)
    tokens: int = 0
    deadline: float = 0.0
    _reason: StopReason | None = None

    def stop(self, reason: StopReason) -> None:
        """Ask the attempt to stop. The first reason counts."""
        self._reason = self._reason or reason

    def should_stop(self) -> bool:
        """Whether the work should stop now; cheap, to be asked at every step."""
        return self._reason is not None or self.journal.fenced or time.monotonic() > self.deadline

    def stop_reason(self) -> JobError | None:
        """Why the work should stop now."""
        if self.journal.fenced or self._reason == "overtaken":
            return Fenced(f"attempt {self.job.attempt} of {self.job.id} is over")
        if self._reason == "cancelled":
            return Cancelled("cancelled on request")
        if self._reason == "released":
            return Released("the worker leaves")
        if time.monotonic() > self.deadline:
            return TimeLimitExceeded(f"not finished within {CATALOGUE[self.job.kind].time_limit:g} s")
        return None

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""
        if (reason := self.stop_reason()) is not None:
            raise reason

    def report_progress(self, done: int, total: int | None = None, note: str = "") -> None:
        """Say how far the work has come, in its row and on its stream. Raises the reason to stop, if there is one."""
        self.check()
        progress = {"done": done, "total": total, "note": note}
        with self.database.connection() as connection:
            store_progress(connection, self.job, progress)
        self.journal.write("sangha:job.progress", {"job_id": self.job.id, "progress": progress})


def open_attempt(job: Job, database: Database, client: redis.Redis, writer: JournalWriter) -> Attempt:
    """Take the journal's fence and read what was said before. Raises Fenced, redis.RedisError, Unavailable."""
    taken = journal.append(client, job.id, job.attempt, [])
    if taken.status == "fenced":
        raise Fenced(f"attempt {job.attempt} of {job.id} is over")
    deadline = time.monotonic() + CATALOGUE[job.kind].time_limit
    if job.attempt == 1 and taken.last >= 0:
        return Attempt(job, database, Journal(job.id, 1, taken.last + 1, writer), deadline=deadline)
    archived, recent = _history(job, database, client)
    history = [*archived.events, *recent]
    begin = history[-1].sequence + 1 if history else 0
    # An end may be missing where Redis is not the one that was told it, or has less than it was told.
    evicted = begin <= taken.last
    lost = job.failures > 0 and (evicted or not taken.same_server)
    if lost:  # before Redis knows more: whoever comes back with an older number is sent where the row says
        with database.connection() as connection:
            store_rewind(connection, job, begin)
    if evicted:
        journal.delete(client, job.id)
    if evicted or taken.last + 1 < begin:
        journal.append(client, job.id, job.attempt, history)
    written = Journal(job.id, job.attempt, begin, writer, recent)
    tokens = archived.tokens + sum(event.tokens for event in recent)
    if lost or _unsaid(job, history):
        written.write(REWOUND.decode(), {"job_id": job.id})
    return Attempt(job, database, written, history, tokens, deadline)


def _unsaid(job: Job, history: Sequence[Event]) -> bool:
    """Whether an earlier attempt found the journal rewound, and died before it could say so."""
    since = job.rewound_at
    return since is not None and not any(event.type == REWOUND and event.sequence >= since for event in history)


def _history(job: Job, database: Database, client: redis.Redis) -> tuple[ArchivedEvents, list[Event]]:
    """What the archive holds, and what only Redis does."""
    with database.connection() as connection:
        archived = read_archive(connection, job.id)
    recent = journal.read_events(client, job.id, archived.last)
    return archived, recent if recent and recent[0].sequence == archived.last + 1 else []

"""The running attempt, as its pipeline sees it."""

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
    """The outcome of an attempt whose job waits for children."""

    children: Sequence[NewJob]


#: What a pipeline returns.
Outcome = Ending | WaitForChildren


@dataclass(frozen=True, slots=True)
class Handler:
    """The pipeline of a kind of job.

    run  does the work of an attempt
    end  returns the ending if `run` did not: cancelled, failed or dead, with `{"code", "message"}`
    """

    run: Callable[["Attempt"], Outcome]
    end: Callable[["Attempt", Literal["cancelled", "failed", "dead"], Mapping[str, Any] | None], Ending]


def plain_ending(
    attempt: "Attempt",
    state: Literal["completed", "cancelled", "failed", "dead"],
    error: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
) -> Ending:
    """Return the ending of a job whose last event carries only its state, error and result."""
    payload = {"job_id": attempt.job.id, "error": error, "result": result}
    events = attempt.journal.compose_endings([(f"sangha:job.{state}", payload)])
    return Ending(state, events, result=result, error=error)


@dataclass(eq=False, slots=True)
class Attempt:
    """One execution of a job, in a thread of a worker.

    history  the events of earlier attempts; `tokens` is the number of generated tokens that they carry
    """

    job: Job
    database: Database
    journal: Journal
    history: list[Event] = field(default_factory=list)
    tokens: int = 0
    deadline: float = 0.0
    _reason: StopReason | None = None

    def stop(self, reason: StopReason) -> None:
        """Ask the attempt to stop. The first reason is kept."""
        self._reason = self._reason or reason

    def should_stop(self) -> bool:
        """Return whether the work should stop now. Cheap: check it at every step."""
        return self._reason is not None or self.journal.fenced or time.monotonic() > self.deadline

    def stop_reason(self) -> JobError | None:
        """Return why the work should stop now, or None."""
        if self.journal.fenced or self._reason == "overtaken":
            return Fenced(f"Attempt {self.job.attempt} of {self.job.id} has been superseded.")
        if self._reason == "cancelled":
            return Cancelled("The job was cancelled.")
        if self._reason == "released":
            return Released("The worker is stopping.")
        if time.monotonic() > self.deadline:
            return TimeLimitExceeded(
                f"The attempt did not finish within its time limit of {CATALOGUE[self.job.kind].time_limit:g} s."
            )
        return None

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""
        if (reason := self.stop_reason()) is not None:
            raise reason

    def report_progress(self, done: int, total: int | None = None, note: str = "") -> None:
        """Store the progress in the job's row and write it to the journal. Raises the reason to stop, if any."""
        self.check()
        progress = {"done": done, "total": total, "note": note}
        with self.database.connection() as connection:
            store_progress(connection, self.job, progress)
        self.journal.write("sangha:job.progress", {"job_id": self.job.id, "progress": progress})


def open_attempt(job: Job, database: Database, client: redis.Redis, writer: JournalWriter) -> Attempt:
    """Take the journal's fence and read its history. Raises Fenced, redis.RedisError and Unavailable."""
    result = journal.append(client, job.id, job.attempt, [])
    if result.status == "fenced":
        raise Fenced(f"Attempt {job.attempt} of {job.id} has been superseded.")
    deadline = time.monotonic() + CATALOGUE[job.kind].time_limit
    if job.attempt == 1 and result.last >= 0:
        return Attempt(job, database, Journal(job.id, 1, result.last + 1, writer), deadline=deadline)
    archived, recent = _history(job, database, client)
    history = [*archived.events, *recent]
    begin = history[-1].sequence + 1 if history else 0
    # The last events may be missing if Redis was restarted, or has fewer events than it confirmed.
    evicted = begin <= result.last
    lost = job.failures > 0 and (evicted or not result.same_server)
    if lost:  # before Redis has more events: clients that resume with an older number are redirected by the row
        with database.connection() as connection:
            store_rewind(connection, job, begin)
    if evicted:
        journal.delete(client, job.id)
    if evicted or result.last + 1 < begin:
        journal.append(client, job.id, job.attempt, history)
    attempt_journal = Journal(job.id, job.attempt, begin, writer, recent)
    tokens = archived.tokens + sum(event.tokens for event in recent)
    if lost or _lacks_rewound_event(job, history):
        attempt_journal.write(REWOUND.decode(), {"job_id": job.id})
    return Attempt(job, database, attempt_journal, history, tokens, deadline)


def _lacks_rewound_event(job: Job, history: Sequence[Event]) -> bool:
    """Return whether an earlier attempt stored that the journal was rewound, and crashed before it wrote the event."""
    since = job.rewound_at
    return since is not None and not any(event.type == REWOUND and event.sequence >= since for event in history)


def _history(job: Job, database: Database, client: redis.Redis) -> tuple[ArchivedEvents, list[Event]]:
    """Return the archived events, and those after them that only Redis has."""
    with database.connection() as connection:
        archived = read_archive(connection, job.id)
    recent = journal.read_events(client, job.id, archived.last)
    return archived, recent if recent and recent[0].sequence == archived.last + 1 else []

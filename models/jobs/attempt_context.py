"""The running attempt, as its pipeline sees it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import redis

from models.jobs.attempts import Ending, is_current, store_progress, store_rewind
from models.jobs.budgets import Draw
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import Job, JoinRule, NewJob
from models.journal import journal
from models.journal.archive import ArchivedEvents, read_chunks
from models.journal.events import REWOUND, Event
from models.journal.journal import AppendResult, Claim, Fence
from models.journal.token_pace import TokenPace
from models.journal.writer import Journal, JournalWriter
from models.platform.database import Connection, Database
from models.platform.errors import Cancelled, Fenced, JobError, PermanentFailure, Released, TimeLimitExceeded

StopReason = Literal["cancelled", "released", "yielded", "overtaken"]

#: Seconds before the next attempt at a batch job that has yielded to interactive work.
YIELD_DELAY = 1.0

#: Time in which the web process has written a new job's opening events to Redis.
OPENING_TIME = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class WaitForChildren:
    """The outcome of an attempt whose job waits for children, at most `timeout` seconds.

    within_month  what the children reserve must fit the account's month. Another job may reserve tokens between the
                  pipeline's estimate and this: then the job runs again at once, with what is left.
    reserve       reserves what the children can cost, in the transaction that inserts them; the same holds if it raises
                  SpendingLimitReached
    record        writes the rows that belong to the children, in the same transaction
    spent         what the job itself has used of its tree's budget since its last wait
    """

    children: Sequence[NewJob]
    join_rule: JoinRule = "all"
    timeout: float | None = None
    within_month: bool = False
    reserve: Callable[[Connection], None] | None = None
    record: Callable[[Connection], None] | None = None
    spent: Draw | None = None


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
    model    the model that answers a turn, once it does
    """

    job: Job
    database: Database
    journal: Journal
    history: list[Event] = field(default_factory=list)
    tokens: int = 0
    deadline: float = 0.0
    model: str = ""
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
        if self._reason == "yielded":
            return Released("Interactive work needs the slot.", delay=YIELD_DELAY)
        if has_passed(self.job.deadline_at):
            return deadline_exceeded(self.job)
        if time.monotonic() > self.deadline:
            return TimeLimitExceeded(
                f"The attempt did not finish within its time limit of {CATALOGUE[self.job.kind].time_limit:g} s."
            )
        return None

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""
        if (reason := self.stop_reason()) is not None:
            raise reason

    def check_current(self, connection: Connection) -> None:
        """Raise Fenced if a newer attempt exists, in a transaction that has locked the job."""
        if not is_current(connection, self.job.id, self.job.attempt, self.job.claim_id):
            raise Fenced(f"Attempt {self.job.attempt} of {self.job.id} has been superseded.")

    def report_progress(
        self, done: int, total: int | None = None, note: str = "", *, resume: Mapping[str, Any] | None = None
    ) -> None:
        """Store the progress in the job's row and write it to the journal. Raises the reason to stop, if any.

        resume  what the next attempt needs to continue; clients do not see it
        """
        self.check()
        progress = {"done": done, "total": total, "note": note}
        with self.database.connection() as connection:
            store_progress(connection, self.job, {**progress, "resume": resume} if resume else progress)
        self.journal.write("sangha:job.progress", {"job_id": self.job.id, "progress": progress})


def open_attempt(job: Job, database: Database, client: redis.Redis, writer: JournalWriter) -> Attempt:
    """Take the journal's fence and read its history. Raises Fenced, redis.RedisError and Unavailable."""
    claim = Claim(job.id, job.attempt, job.claim_id)
    result = _take_fence(claim, database, client)
    deadline = time.monotonic() + _time_left(job)
    opened = result.fence == 0 and job.attempt == 1 and not result.ended
    if opened and result.same_server:  # Redis has the opening events, and no others
        return Attempt(job, database, Journal(claim, result.last + 1, writer, pace=_pace(job, 0)), deadline=deadline)
    archived, recent = _history(job, database, client)
    history = [*archived.events, *recent]
    begin = history[-1].sequence + 1 if history else 0
    # Redis has fewer events than it confirmed, or ending events whose commit Postgres has lost.
    incomplete = begin <= result.last
    lost = incomplete or (not result.same_server and _may_follow_others(job, result.fence, history))
    # Where events are lost, and where an earlier attempt said so, of which a failover may have lost the row's note.
    rewinds = [event.sequence for event in recent if event.type == REWOUND] + ([begin] if lost else [])
    if rewinds:  # before Redis has more events: clients that resume with an older number are redirected by the row
        with database.connection() as connection:
            store_rewind(connection, job, min(rewinds))
    behind = incomplete or result.last + 1 < begin
    if behind or not (lost or result.same_server):
        events = history if behind else []
        appended = journal.append(client, claim, events, replace=behind, complete=not lost, shards=0)
        _require_fence(appended, claim)
    tokens = archived.tokens + sum(event.tokens for event in recent)
    attempt_journal = Journal(claim, begin, writer, recent, _pace(job, tokens))
    if lost or _lacks_rewound_event(job, history):
        attempt_journal.write(REWOUND.decode(), {"job_id": job.id, "attempt": job.attempt})
    return Attempt(job, database, attempt_journal, history, tokens, deadline)


def _pace(job: Job, tokens: int) -> TokenPace:
    """Return the pace of an attempt whose journal has been opened, and which follows `tokens` tokens of its job.

    Only the first claim has its time in the row; another one is timed by the clock of this machine.
    """
    if tokens:
        return TokenPace()
    claimed_at = job.started_at if job.attempt == 1 and job.started_at else datetime.now(UTC)
    return TokenPace(time.monotonic() - max(0.0, (claimed_at - job.created_at).total_seconds()))


def has_passed(deadline_at: datetime | None) -> bool:
    """Return whether a job's deadline, if it has one, has passed."""
    return deadline_at is not None and deadline_at <= datetime.now(UTC)


def deadline_exceeded(job: Job) -> PermanentFailure:
    """Return the failure of a job whose deadline has passed."""
    assert job.deadline_at is not None
    time_text = job.deadline_at.isoformat(timespec="seconds")
    return PermanentFailure(f"The job did not end before its deadline, {time_text}.", code="deadline_exceeded")


def _time_left(job: Job) -> float:
    """Return the seconds that an attempt may take: its kind's limit, or until the job's deadline."""
    limit = CATALOGUE[job.kind].time_limit
    if job.deadline_at is None:
        return limit
    return min(limit, (job.deadline_at - datetime.now(UTC)).total_seconds())


def _take_fence(claim: Claim, database: Database, client: redis.Redis) -> AppendResult:
    """Take the fence without writing, and ask Postgres before the first write whether the claim is current.

    It may not be: a promoted standby that lacks the claim has let another worker claim the job, whose fence has another
    claim or even a lower attempt. Nobody else can have claimed a job whose fence is still that of the web process.
    """
    result = journal.append(client, claim, [])
    if result.status == "ok" and result.fence == 0 and claim.attempt == 1:
        return result
    with database.connection() as connection:
        if not is_current(connection, claim.job_id, claim.attempt, claim.claim_id):
            raise _fenced(claim)
    return result if result.status == "ok" else journal.append(client, claim, [], Fence.SEIZE)


def _may_follow_others(job: Job, fence: int, history: Sequence[Event]) -> bool:
    """Return whether an earlier attempt may have written events that neither the row nor Redis tells of.

    A failover of Postgres may have lost that an attempt was begun, or that it failed. Then the fence tells. If Redis
    has lost that too, the age does: a job with opening events has no fence only while it is new.
    """
    if job.failures > 0 or fence >= 0:
        return True
    return bool(history) and job.attempt == 1 and datetime.now(UTC) - job.created_at > OPENING_TIME


def _require_fence(result: AppendResult, claim: Claim) -> None:
    if result.status != "ok":
        raise _fenced(claim)


def _fenced(claim: Claim) -> Fenced:
    return Fenced(f"Attempt {claim.attempt} of {claim.job_id} has been superseded.")


def _lacks_rewound_event(job: Job, history: Sequence[Event]) -> bool:
    """Return whether an earlier attempt stored that the journal was rewound, and crashed before it wrote the event."""
    since = job.rewound_at
    return since is not None and not any(event.type == REWOUND and event.sequence >= since for event in history)


def _history(job: Job, database: Database, client: redis.Redis) -> tuple[ArchivedEvents, list[Event]]:
    """Return the archived events, and those after them that only Redis has."""
    with database.connection() as connection:
        archived = read_chunks(connection, job.id)
    recent = journal.read_events(client, job.id, archived.last)
    return archived, without_ending(recent) if recent and recent[0].sequence == archived.last + 1 else []


def without_ending(events: list[Event]) -> list[Event]:
    """Drop the events that ended the journal, if they are the last ones: the job has not ended.

    Postgres has lost the commit of the ending. An earlier version did not mark the events before the last one.
    """
    if not (events and events[-1].ends):
        return events
    kept = events[:-1]
    while kept and kept[-1].ending:
        kept.pop()
    return kept

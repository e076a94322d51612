"""The steps of the job protocol's stateful test: each runs a statement of the core and the model's transition."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from models.jobs import attempts, budgets, leases, outbox
from models.jobs.attempts import Ending
from models.jobs.budgets import BudgetLimits, Draw
from models.jobs.catalogue import CATALOGUE
from models.jobs.children import wait_for_children
from models.jobs.jobs import ENDED, Job, NewJob, enqueue, lane_of
from models.jobs.outbox import DueJob, shard_of
from models.jobs.windows import window_sizes
from models.journal.archive import last_archived
from models.journal.events import Event, event
from models.platform.database import Connection
from models.platform.errors import BudgetExhausted, Fenced, PermanentFailure
from tests.models.jobs import protocol_checks
from tests.models.jobs.protocol_rows import Budget, ModelJob, Time
from tests.models.jobs.protocol_time import Clock
from tests.pipelines.effect_provider import Crash, Provider

ACCOUNTS = ("acct_a", "acct_b")
KINDS = ("test.work", "test.other", "test.urgent")  # the first and the last have one queue
LANES = ("lane_e", "lane_i")  # of the shard of acct_a
SHARDS = sorted({shard_of(lane) for lane in ACCOUNTS + LANES})

#: Serial keys: two of single jobs, one of coalescing and other jobs, and one of children.
KEYS, MIXED_KEY, CHILD_KEY = ("s1", "s2"), "c1", "leaf"

MAX_JOBS = 24  # jobs of one example
RARELY = st.sampled_from([False, False, False, True])

HOUR = timedelta(hours=1)

# Times are an hour away, so that none of them passes between two statements.
LENGTHEN_AGES = """
UPDATE jobs SET published_at = now() + interval '1 hour'
WHERE state = 'queued' AND published_at IS NOT NULL AND id = ANY(%s)
"""


def action(
    *, weight: int = 1, when: Callable[[Any], bool] = lambda self: True, **strategies: Any
) -> Callable[[Any], Any]:
    """Declare a step of the test: how often it is taken, in which states, and its arguments."""

    def decorate(method: Any) -> Any:
        method.weight, method.when, method.strategies = weight, when, strategies
        return method

    return decorate


@dataclass
class WorkerAttempt:
    """An attempt of a worker, current or not, with its events since the last checkpoint.

    `held` is whether the worker knows that it runs it.
    """

    job: Job
    worker: str
    next_sequence: int
    events: list[Event] = field(default_factory=list)
    held: bool = True

    @property
    def claim(self) -> tuple[str, int, UUID | None]:
        return (self.job.id, self.job.attempt, self.job.claim_id)


class ProtocolMachine(Clock):
    """Postgres and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[str, str]] = []  # (message id, job id): each may be delivered at any time
        self.worker_attempts: list[WorkerAttempt] = []
        self.cursors: dict[int, dict[str, str]] = {shard: {} for shard in SHARDS}
        self.ended_rows: dict[str, str] = {}  # a hash of each
        self.provider = Provider()
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM endings")
            connection.execute("DELETE FROM accounts WHERE id <> 'platform'")
            connection.execute("DELETE FROM workers")
            connection.execute("DELETE FROM effects")
            connection.execute("DELETE FROM ended_jobs")
            for account_id in ACCOUNTS:
                connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
        self.start_worker(1)
        self.start_worker(2)

    # ── insert ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def new_job(
        self, kind: str, account_id: str, *, opening: bool = False, late: bool = False, **options: Any
    ) -> NewJob:
        """Make a job. An id is made before its row is inserted: a `late` one comes after higher ids."""
        number = self.model.next_number()
        events = [event(0, "test.opened", {"number": number})] if opening else []
        return NewJob(kind, account_id, id=f"job_{number + (100_000 if late else 500_000)}", opening=events, **options)

    def insert(self, connection: Connection, new: NewJob, *, later: bool = False, deadline: bool = False) -> bool:
        """Insert a job that is due now or in an hour. Returns whether it was inserted."""
        now = datetime.now(UTC)
        run_at, deadline_at = (
            (now + HOUR if later else now - HOUR),
            (now + HOUR if deadline and not new.coalesce else None),
        )
        return enqueue(connection, replace(new, run_at=run_at, deadline_at=deadline_at))

    def open_budget(self, connection: Connection, root: NewJob, tokens: int) -> None:
        budgets.open_budget(connection, root.id, root.account_id, BudgetLimits(tokens=tokens, depth=2))
        self.model.budgets[root.id] = Budget(tokens, most_depth=2)

    # ── relay ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def lock_due_jobs_of_lanes(self, connection: Connection, lanes: Collection[str]) -> list[DueJob]:
        due = outbox.lock_due_jobs_of_lanes(connection, self.windows(connection), lanes)
        assert [job.id for job in due] == self.model.due_of_lanes(lanes, self.run_at(connection))
        return due

    def lock_due_jobs_of_shard(self, connection: Connection, shard: int) -> list[DueJob]:
        after, expected_after = self.cursors[shard], dict(self.cursors[shard])
        due = outbox.lock_due_jobs_of_shard(connection, self.windows(connection), shard, after)
        assert [job.id for job in due] == self.model.due_of_shard(shard, expected_after, self.run_at(connection))
        assert after == expected_after
        return due

    def windows(self, connection: Connection) -> dict[str, int]:
        windows = window_sizes(connection)
        assert windows == self.model.windows()
        return windows

    def run_at(self, connection: Connection) -> dict[str, datetime]:
        return {row["id"]: row["run_at"] for row in connection.execute("SELECT id, run_at FROM jobs").fetchall()}

    def mark(self, connection: Connection, sent: Sequence[DueJob]) -> None:
        outbox.mark_published(connection, sent)
        connection.execute(LENGTHEN_AGES, ([job.id for job in sent],))

    def send(self, job_id: str) -> None:
        self.messages.append((f"message {self.model.next_number()}", job_id))

    def publish(self) -> list[str]:
        """Publish the jobs of all lanes without faults. Returns their ids."""
        published = []
        for shard in SHARDS:
            with self.database.batch() as connection:
                due = self.lock_due_jobs_of_shard(connection, shard)
                self.mark(connection, due)
            self.model.mark(due)
            for job in due:
                self.send(job.id)
            published += [job.id for job in due]
        return published

    # ── claim ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def deliver(self, message_id: str, job_id: str, worker: str, *, unsure: bool = False) -> WorkerAttempt | None:
        """Deliver a message: the worker claims the job, or drops the message."""
        earlier = self.model.earlier(self.jobs[job_id]) if job_id in self.jobs else []
        with self.database.connection() as connection:
            job = attempts.claim(connection, job_id, message_id=message_id, worker=worker, unsure=unsure)
        row = self.model.claim(job_id, message_id, worker, unsure=unsure)
        assert (job is None) == (row is None)
        if job is None or row is None:
            return None
        assert (job.attempt, job.failures, job.state) == (row.attempt, row.failures, "running")
        if row.serial_key not in self.model.mixed_keys and not row.coalesce:
            assert not earlier, "jobs of a serial key run in order"
        row.claim_id = job.claim_id
        return self.hold(job, worker)

    def hold(self, job: Job, worker: str) -> WorkerAttempt:
        with self.database.connection() as connection:
            self.worker_attempts.append(WorkerAttempt(job, worker, last_archived(connection, job.id) + 1))
        return self.worker_attempts[-1]

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(
        self,
        attempt: WorkerAttempt,
        fault: str,
        statement: Callable[[Connection], Any],
        *,
        rejected: type[Exception] | None = None,
        within: Any = None,
        keeps: bool = False,
    ) -> bool:
        """Run a transaction of an attempt. Returns whether it took effect, neither rejected nor lost.

        fault     "crash" before the commit; "lost": a failover loses the commit; "unconfirmed": the reply is lost
        rejected  the error that is expected of a current attempt
        keeps     the attempt goes on afterwards
        """
        within = within or self.database.transaction
        if not self.model.is_current(*attempt.claim) or rejected:
            expected = rejected if self.model.is_current(*attempt.claim) else Fenced
            with pytest.raises(expected or Fenced), within() as connection:
                statement(connection)
            return False
        with self.rolled_back(fault in ("crash", "lost"), within) as connection:
            statement(connection)
        if fault == "unconfirmed":
            self.repeat(attempt, statement)
        if fault != "crash" and not keeps:
            attempt.held = False
        return fault not in ("crash", "lost")

    def repeat(self, attempt: WorkerAttempt, statement: Callable[[Connection], Any]) -> None:
        """Repeat a transaction whose confirmation was lost: it is fenced, or changes nothing."""
        try:
            with self.database.transaction() as connection:
                statement(connection)
        except Fenced:
            return
        with self.database.connection() as connection:
            assert attempts.is_current(connection, *attempt.claim)

    @contextmanager
    def rolled_back(self, crashes: bool, within: Any = None) -> Iterator[Connection]:
        """Open a transaction, which is rolled back if the process crashes or a failover loses it."""
        try:
            with (within or self.database.transaction)() as connection:
                yield connection
                if crashes:
                    raise Crash
        except Crash:
            return

    def end(
        self, attempt: WorkerAttempt, state: str, fault: str = "", follow_ups: Sequence[NewJob] = (), *,
        code: str | None = None, overdraws: bool = False,
    ) -> bool:  # fmt: skip
        """End a job that has used one token, or more than it has drawn. Returns whether it took effect."""
        row = self.jobs[attempt.job.id]
        used = row.drawn + 2 if overdraws else 1
        ending_event = event(attempt.next_sequence, f"sangha:job.{state}", {"job_id": row.id})
        ending = Ending(
            state, [ending_event], record=lambda c: self.record_end(c, row), follow_ups=follow_ups, tokens=used,
            error={"code": code, "message": "a test"} if code else None,
        )  # fmt: skip
        returned = []

        def end(connection: Connection) -> None:
            returned.append(attempts.end(connection, attempt.job, ending, [*attempt.events, ending_event]))

        ended = self.step(attempt, fault, end, within=self.database.batch)
        if ended:
            lanes = self.model.end(row, state, code)
            inserted = [self.jobs[new.id] for new in follow_ups if self.model.insert(new)]
            if any(job.visible for job in inserted):
                lanes |= {lane_of(new) for new in follow_ups}
            assert returned == [lanes]
            row.endings += 1
            self.model.settle(row, used=used)
        return ended

    def record_end(self, connection: Connection, row: ModelJob) -> None:
        """Count the ending."""
        connection.execute("INSERT INTO endings VALUES (%s)", (row.id,))

    def fail(self, attempt: WorkerAttempt, fault: str = "") -> None:
        error = {"code": "server_error", "message": "a test"}
        if self.step(attempt, fault, lambda c: attempts.retry(c, attempt.job, error, "trace", attempt.events)):
            self.jobs[attempt.job.id].requeue_later(failures=1)

    def release(self, attempt: WorkerAttempt, fault: str = "", delay: float = 0) -> None:
        if self.step(attempt, fault, lambda c: attempts.release(c, attempt.job, attempt.events, delay=delay)):
            self.jobs[attempt.job.id].requeue("scheduled" if delay else "queued")

    def abandon(self, attempt: WorkerAttempt) -> None:
        """Give up an attempt that does not stop."""
        with self.database.connection() as connection:
            leases.abandon(connection, attempt.job)
        if self.model.is_current(*attempt.claim):
            self.jobs[attempt.job.id].requeue(failures=1)
        attempt.held = False

    def wait(
        self, attempt: WorkerAttempt, new_jobs: Sequence[NewJob], join_rule: str = "all", timeout: bool = False,
        tokens: int = 0, fault: str = "",
    ) -> None:  # fmt: skip
        """Let an attempt wait for children, each of which draws tokens."""
        job, row = attempt.job, self.jobs[attempt.job.id]
        new_jobs = [replace(new, draw=Draw(tokens=tokens)) for new in new_jobs]
        inserted = self.model.insertable(new_jobs)
        root_id, depth = row.root_id or row.id, row.depth + 1

        def wait(connection: Connection) -> None:
            wait_for_children(
                connection, job, new_jobs, attempt.events, join_rule=join_rule, timeout=3600 if timeout else None
            )

        drawn = tokens * len(inserted)
        rejected = self.rejection(row, new_jobs, bool(inserted), root_id, drawn, depth)
        if self.step(attempt, fault, wait, rejected=rejected):
            self.model.wait(row, new_jobs, join_rule, timeout, deadline_of(job))

    def rejection(
        self, row: ModelJob, new_jobs: Sequence[NewJob], draws: bool, root_id: str, tokens: int, depth: int
    ) -> type[Exception] | None:
        if row.cancel_requested:
            return Fenced
        if not self.model.may_have_children(row, new_jobs):
            return PermanentFailure
        return BudgetExhausted if draws and not self.model.may_draw(root_id, tokens, depth) else None

    # ── draws ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def any_job(self) -> st.SearchStrategy[ModelJob]:
        return st.sampled_from(list(self.jobs.values()))

    def any_worker(self) -> st.SearchStrategy[str]:
        return st.sampled_from(list(self.model.workers))

    def current_attempts(self) -> list[WorkerAttempt]:
        return [attempt for attempt in self.worker_attempts if self.model.is_current(*attempt.claim)]

    def draw_attempt(self, data: Any) -> WorkerAttempt:
        """Draw an attempt: mostly a current one, sometimes an earlier one."""
        if not self.current_attempts():
            self.publish_and_claim(data)
        current = self.current_attempts() or self.worker_attempts
        earlier = self.worker_attempts if data.draw(RARELY) else current
        return data.draw(st.sampled_from(earlier))

    def publish_and_claim(self, data: Any) -> None:
        """Publish due jobs and claim their messages."""
        self.publish()
        for message_id, job_id in self.messages[-8:]:
            if self.jobs[job_id].state == "queued":
                self.deliver(message_id, job_id, data.draw(self.any_worker()))

    def may_wait(self, attempt: WorkerAttempt) -> bool:
        row = self.jobs[attempt.job.id]
        return not row.cancel_requested

    # ── invariants ───────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def check(self) -> None:
        """Check that Postgres equals the model and that the invariants hold."""
        with self.database.batch() as connection:
            protocol_checks.check(connection, self.model, self.ended_rows, self.provider)

    # ── liveness ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        """Check liveness: from any state, sweeping, publishing and working end every job."""
        for _ in range(4 * len(self.jobs) + 8):
            if all(job.state in ENDED for job in self.jobs.values()):
                break
            worker = self.let_everything_pass()
            for job_id in self.publish():
                attempt = self.deliver(*self.message_of(job_id), worker)
                if attempt is not None:
                    self.end(attempt, self.last_state(attempt.job))
        assert all(job.state in ENDED for job in self.jobs.values())
        self.check()

    def let_everything_pass(self) -> str:
        """Let all workers fall silent, all times pass, and all messages be lost. Returns a new worker."""
        self.fall_silent(*self.model.workers, *self.model.unknown_workers)
        name = self.start_worker(2)
        self.age_messages([row for row in self.jobs.values() if row.state == "queued" and row.published], 7200)
        for column in ("run_at", "wait_until"):
            self.pass_time(self.with_future(column), column)
        self.sweep(unblock=bool(self.model.mixed_keys))
        if delayed := self.with_future("run_at"):
            self.pass_time(delayed, "run_at")
            self.sweep()
        return name

    def message_of(self, job_id: str) -> tuple[str, str]:
        return next(message for message in reversed(self.messages) if message[1] == job_id)

    def last_state(self, job: Job) -> str:
        if job.cancel_requested_at is not None:
            return "cancelled"
        return "dead" if job.failures >= CATALOGUE[job.kind].attempts else "completed"


def deadline_of(job: Job) -> Time:
    """Return the deadline that the children of an attempt inherit."""
    if job.deadline_at is None:
        return "none"
    return "future" if job.deadline_at > datetime.now(UTC) else "passed"

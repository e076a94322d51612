"""A stateful test of the job protocol against a model.

Jobs of two accounts have parents, serial keys and unique keys. The relay crashes anywhere; the broker duplicates,
reorders, redelivers and loses messages; workers stop between any two statements and come back late.

After every step Postgres equals the model, and the invariants in `check_*` hold. From every state sweeping, publishing
and working end every job.

All steps run in one thread; `test_cancellation.py` tests concurrent statements.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from models.jobs import attempts, outbox, workers
from models.jobs.attempts import Ending
from models.jobs.cancellation import cancel
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import ENDED, Job, NewJob, enqueue
from models.journal.archive import read_archive
from models.journal.events import Event, event
from models.platform.database import Database
from models.platform.errors import Fenced

ACCOUNTS = ("acct_a", "acct_b")
KINDS = ("test.work", "test.other")
WINDOW = 2
MAX_JOBS = 24  # jobs of one example

UNFINISHED = ("queued", "running", "waiting")
END_STATES = ("completed", "failed", "cancelled", "dead")


@dataclass
class ModelJob:
    """The model of a job."""

    id: str
    account_id: str
    kind: str
    serial_key: str | None = None
    parent_id: str | None = None
    state: str = "queued"
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    published: bool = False
    delayed: bool = False
    cancel_requested: bool = False
    message_id: str | None = None
    worker: str | None = None
    pending: int = 0
    opened: bool = False
    outside_window: bool = False  # runs although it was not published within its window
    endings: int = 0

    @property
    def in_flight(self) -> bool:
        return self.state == "running" or (self.state == "queued" and self.published)

    @property
    def suspect(self) -> bool:
        return self.crashes >= outbox.SUSPECT_CRASHES

    def requeue(self, *, failures: int = 0, crashes: int = 0, delayed: bool = False) -> None:
        """Put the job back into the outbox."""
        self.state, self.published, self.message_id, self.worker = "queued", False, None, None
        self.failures += failures + crashes
        self.crashes += crashes
        self.delayed = delayed
        self.outside_window = False


@dataclass
class WorkerAttempt:
    """An attempt of a worker, current or not, with its events since the last checkpoint."""

    job: Job
    worker: str
    next_sequence: int
    events: list[Event] = field(default_factory=list)


class Crash(Exception):
    """A process crashes inside a transaction."""


class JobProtocol(RuleBasedStateMachine):
    """Postgres and the model."""

    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, ModelJob] = {}
        self.messages: list[tuple[str, str]] = []  # (message id, job id): every message may be delivered at any time
        self.worker_attempts: list[WorkerAttempt] = []
        self.pids: dict[str, int] = {}
        self.unique: dict[str, str] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.relay_crashed = False
        self.count = 0
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM endings")
            connection.execute("DELETE FROM accounts WHERE id <> 'platform'")
            connection.execute("DELETE FROM workers")
            for account_id in ACCOUNTS:
                connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
        self.new_worker()
        self.new_worker()

    @initialize(data=st.data(), count=st.integers(2, 6))
    def some_jobs(self, data, count):
        """Start with some jobs, some of them running."""
        for _ in range(count):
            serial_key = data.draw(st.sampled_from([None, None, "s1"]))
            self.enqueue_jobs(
                data.draw(st.sampled_from(ACCOUNTS)), "test.work", False, serial_key, None, True, 1, False
            )
        self.publish_and_claim(data)

    # ── web processes ────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.rows) < MAX_JOBS)
    @rule(
        account_id=st.sampled_from(ACCOUNTS),
        kind=st.sampled_from(KINDS),
        late=st.booleans(),
        serial_key=st.sampled_from([None, None, "s1", "s2"]),
        unique_key=st.sampled_from([None, None, None, "u1", "u2"]),
        opening=st.booleans(),
        count=st.sampled_from([1, 1, 1, 4]),
        crashes=st.sampled_from([False, False, False, True]),
    )
    def enqueue_jobs(self, account_id, kind, late, serial_key, unique_key, opening, count, crashes):
        """An id is generated before its row is inserted: `late` rows come after rows with higher ids."""
        jobs = [self.new_job(kind, account_id, serial_key, unique_key, opening, late) for _ in range(count)]
        with self.transaction_or_crash(crashes) as connection:
            for job in jobs:
                enqueue(connection, job)
        if not crashes:
            for job in jobs:
                self.model_insert(job)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), crashes=st.sampled_from([False, False, False, True]))
    def cancel_a_job(self, data, crashes):
        row = data.draw(st.sampled_from(list(self.rows.values())))
        running_ids: list[str] = []
        with self.transaction_or_crash(crashes) as connection:
            done = cancel(connection, row.id, row.account_id)
            running_ids = done.running
        if not crashes:
            assert set(running_ids) == {
                r.id for r in self.subtree(row) if r.state == "running" and not r.cancel_requested
            }
            assert set(done.ended) == self.model_cancel(row)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def another_account_cancels(self, data):
        row = data.draw(st.sampled_from(list(self.rows.values())))
        other_account = next(account_id for account_id in ACCOUNTS if account_id != row.account_id)
        with self.database.transaction() as connection:
            done = cancel(connection, row.id, other_account)
        assert (done.ended, done.running) == ({}, [])

    # ── relay and broker ─────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        data=st.data(), crash=st.sampled_from(["no", "no", "no", "while publishing", "before the mark", "at the mark"])
    )
    def relay_publishes(self, data, crash):
        with self.transaction_or_crash(crash != "no") as connection:
            due = outbox.lock_due_jobs(
                connection, dict.fromkeys(KINDS, WINDOW) | {"turn.run": 1, "maintenance.prune": 1}
            )
            self.check_due({job.id for job in due})
            sent = due[: data.draw(st.integers(0, len(due)))] if crash == "while publishing" else due
            for job in sent:
                self.publish(job.id)
            if crash in ("no", "at the mark"):
                outbox.mark_published(connection, sent)
        if crash == "no":
            for job in sent:
                self.rows[job.id].published = True
        self.relay_crashed = self.relay_crashed or crash != "no"

    @rule(data=st.data(), fails=st.booleans())
    def worker_claims_before_the_mark(self, data, fails):
        """Claim a job, and perhaps release it, between its publication and the mark."""
        with self.database.transaction() as connection:
            due = outbox.lock_due_jobs(connection, dict.fromkeys(KINDS, WINDOW))
            for job in due:
                self.publish(job.id)
            if due:
                first = self.deliver(*self.messages[-1], data.draw(st.sampled_from(list(self.pids))))
                assert first is not None
                self.rows[first.job.id].outside_window = False  # this relay published it
                if fails:
                    self.fail(first, "")
            outbox.mark_published(connection, due)
        for job in due:
            row = self.rows[job.id]
            row.published = row.published or row.attempt == job.attempt

    @precondition(lambda self: any(row.state in ("running", "waiting") for row in self.rows.values()))
    @rule(data=st.data())
    def duplicate_message_is_delivered(self, data):
        """Deliver a duplicate from a second relay or the sweeper, which is dropped."""
        row = data.draw(st.sampled_from([row for row in self.rows.values() if row.state in ("running", "waiting")]))
        self.publish(row.id)
        assert self.deliver(*self.messages[-1], data.draw(st.sampled_from(list(self.pids)))) is None

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def message_is_delivered(self, data):
        """Deliver any message to any worker: late, twice, out of order. Those never drawn are lost."""
        message_id, job_id = data.draw(st.sampled_from(self.messages[-12:]))
        self.deliver(message_id, job_id, data.draw(st.sampled_from(list(self.pids))))

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def newest_message_is_delivered(self, data):
        message_id, job_id = self.messages[-1]
        self.deliver(message_id, job_id, data.draw(st.sampled_from(list(self.pids))))

    @rule(data=st.data())
    def publish_and_claim(self, data):
        """Publish due jobs and claim their messages."""
        self.relay_publishes(data, "no")
        for message_id, job_id in self.messages[-8:]:
            if not self.rows[job_id].attempt:
                self.deliver(message_id, job_id, data.draw(st.sampled_from(list(self.pids))))

    # ── live and dead workers ────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.worker_attempts)
    @rule(data=st.data(), count=st.integers(1, 3))
    def attempt_writes_events(self, data, count):
        worker_attempt = data.draw(self.any_attempt())
        for _ in range(count):
            worker_attempt.events.append(
                event(worker_attempt.next_sequence, "test.event", {"by": worker_attempt.job.attempt}, tokens=1)
            )
            worker_attempt.next_sequence += 1

    @precondition(lambda self: any(worker_attempt.events for worker_attempt in self.worker_attempts))
    @rule(data=st.data(), fault=st.sampled_from(["", "", "crash", "unconfirmed"]))
    def attempt_writes_a_checkpoint(self, data, fault):
        worker_attempt = data.draw(self.any_attempt().filter(lambda worker_attempt: worker_attempt.events))
        if self.step(
            worker_attempt,
            fault,
            lambda connection: attempts.checkpoint(connection, worker_attempt.job, worker_attempt.events),
        ):
            worker_attempt.events = []

    @precondition(lambda self: self.worker_attempts)
    @rule(data=st.data(), state=st.sampled_from(END_STATES), fault=st.sampled_from(["", "", "crash", "unconfirmed"]))
    def attempt_ends(self, data, state, fault):
        self.end(data.draw(self.any_attempt()), state, fault)

    @precondition(lambda self: self.worker_attempts)
    @rule(data=st.data(), fault=st.sampled_from(["", "", "crash", "unconfirmed"]))
    def attempt_fails(self, data, fault):
        self.fail(data.draw(self.any_attempt()), fault)

    def fail(self, worker_attempt: WorkerAttempt, fault: str) -> None:
        error = {"code": "server_error", "message": "a test"}
        if self.step(
            worker_attempt,
            fault,
            lambda connection: attempts.retry(connection, worker_attempt.job, error, "trace", worker_attempt.events),
        ):
            self.rows[worker_attempt.job.id].requeue(failures=1, delayed=True)

    @precondition(lambda self: self.worker_attempts)
    @rule(data=st.data(), fault=st.sampled_from(["", "", "crash", "unconfirmed"]))
    def attempt_is_released(self, data, fault):
        self.release(data.draw(self.any_attempt()), fault)

    @precondition(lambda self: any(map(self.is_superseded, self.worker_attempts)))
    @rule(data=st.data(), state=st.sampled_from(END_STATES))
    def superseded_attempt_continues(self, data, state):
        """Let an older attempt try every step while a newer one runs."""
        worker_attempt = data.draw(
            st.sampled_from(
                [worker_attempt for worker_attempt in self.worker_attempts if self.is_superseded(worker_attempt)]
            )
        )
        events = [event(worker_attempt.next_sequence, "test.event", {"by": "a superseded attempt"})]
        self.end(worker_attempt, state, "")
        self.fail(worker_attempt, "")
        self.release(worker_attempt, "")
        self.step(worker_attempt, "", lambda connection: attempts.checkpoint(connection, worker_attempt.job, events))
        self.step(worker_attempt, "", lambda connection: attempts.store_progress(connection, worker_attempt.job, {}))
        self.step(worker_attempt, "", lambda connection: attempts.store_rewind(connection, worker_attempt.job, 0))
        self.step(
            worker_attempt,
            "",
            lambda connection: attempts.wait_for_children(connection, worker_attempt.job, [], events),
        )

    def is_superseded(self, worker_attempt: WorkerAttempt) -> bool:
        row = self.rows[worker_attempt.job.id]
        return row.state == "running" and row.attempt > worker_attempt.job.attempt

    def release(self, worker_attempt: WorkerAttempt, fault: str) -> None:
        if self.step(
            worker_attempt,
            fault,
            lambda connection: attempts.release(connection, worker_attempt.job, worker_attempt.events),
        ):
            self.rows[worker_attempt.job.id].requeue()

    @precondition(lambda self: self.worker_attempts and len(self.rows) < MAX_JOBS)
    @rule(
        data=st.data(),
        count=st.integers(0, 3),
        unique_key=st.sampled_from([None, None, None, "u1", "u3"]),
        opening=st.booleans(),
        fault=st.sampled_from(["", "", "crash", "unconfirmed"]),
    )
    def attempt_waits_for_children(self, data, count, unique_key, opening, fault):
        worker_attempt = data.draw(self.any_attempt())
        account_id, parent = worker_attempt.job.account_id, self.rows[worker_attempt.job.id]
        jobs = [
            self.new_job(data.draw(st.sampled_from(KINDS)), account_id, None, unique_key, opening) for _ in range(count)
        ]
        refused = parent.cancel_requested  # it was cancelled before
        if self.step(
            worker_attempt,
            fault,
            lambda connection: attempts.wait_for_children(connection, worker_attempt.job, jobs, worker_attempt.events),
            refused,
        ):
            inserted = [self.model_insert(job, parent.id) for job in jobs]
            parent.requeue()
            parent.pending = sum(inserted)
            parent.state = "waiting" if parent.pending else "queued"

    @precondition(lambda self: any(map(self.may_wait, self.worker_attempts)) and len(self.rows) < MAX_JOBS)
    @rule(data=st.data(), count=st.sampled_from([3, 2, 1]), relayed=st.booleans())
    def current_attempt_waits_for_children(self, data, count, relayed):
        """Let a current attempt wait for its children, and usually run these."""
        worker_attempt = data.draw(
            st.sampled_from(
                [worker_attempt for worker_attempt in self.worker_attempts if self.may_wait(worker_attempt)]
            )
        )
        jobs = [self.new_job("test.other", worker_attempt.job.account_id, None, None, False) for _ in range(count)]
        assert self.step(
            worker_attempt,
            "",
            lambda connection: attempts.wait_for_children(connection, worker_attempt.job, jobs, worker_attempt.events),
        )
        for job in jobs:
            self.model_insert(job, worker_attempt.job.id)
        parent = self.rows[worker_attempt.job.id]
        parent.requeue()
        parent.state, parent.pending = "waiting", count
        if relayed:
            self.publish_and_claim(data)

    def may_wait(self, worker_attempt: WorkerAttempt) -> bool:
        return (
            self.is_current(worker_attempt.job.id, worker_attempt.job.attempt)
            and not self.rows[worker_attempt.job.id].cancel_requested
        )

    @precondition(lambda self: self.worker_attempts)
    @rule(data=st.data())
    def worker_stores_progress(self, data):
        worker_attempt = data.draw(self.any_attempt())
        self.step(
            worker_attempt, "", lambda connection: attempts.store_progress(connection, worker_attempt.job, {"done": 1})
        )

    @precondition(lambda self: self.worker_attempts)
    @rule(data=st.data())
    def worker_renews_its_leases(self, data):
        """Renew leases: the current attempts are returned, each with its cancel flag."""
        worker = data.draw(st.sampled_from(sorted({worker_attempt.worker for worker_attempt in self.worker_attempts})))
        leases = {
            worker_attempt.job.id: worker_attempt.job.attempt
            for worker_attempt in self.worker_attempts
            if worker_attempt.worker == worker
        }
        with self.database.connection() as connection:
            renewed = attempts.renew_leases(connection, leases, lease=3600)
        current = {id_ for id_, attempt in leases.items() if self.is_current(id_, attempt)}
        assert renewed == {id_: self.rows[id_].cancel_requested for id_ in current}

    @rule(data=st.data())
    def supervisor_releases_a_dead_worker(self, data):
        """Release the jobs of a dead worker; its attempts may still write later."""
        name = data.draw(st.sampled_from(list(self.pids)))
        running = [row for row in self.rows.values() if row.state == "running" and row.worker == name]
        assert workers.release_jobs_of_dead_worker(self.database, "host", self.pids.pop(name)) == len(running)
        for row in self.rows.values():
            if row.state == "queued":
                row.published = False
        for row in running:
            row.requeue(crashes=1, delayed=row.failures > 0)
        self.lengthen_delays()
        self.new_worker()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: any(row.state == "running" for row in self.rows.values()))
    @rule(data=st.data())
    def lease_expires(self, data):
        row = data.draw(st.sampled_from([row for row in self.rows.values() if row.state == "running"]))
        self.set(row, "lease_until = now() - interval '1 second'")
        self.sweep()
        row.requeue(crashes=1, delayed=row.failures > 0)
        self.lengthen_delays()

    @precondition(lambda self: any(row.state == "queued" and row.published for row in self.rows.values()))
    @rule(data=st.data())
    def message_is_lost(self, data):
        row = data.draw(st.sampled_from([row for row in self.rows.values() if row.state == "queued" and row.published]))
        self.set(row, "published_at = now() - interval '1 day', run_at = now() - interval '25 hours'")
        self.sweep()
        row.published = False

    @precondition(lambda self: any(row.delayed for row in self.rows.values()))
    @rule()
    def delays_pass(self):
        with self.database.connection() as connection:
            connection.execute("UPDATE jobs SET run_at = now() WHERE run_at > now()")
        for row in self.rows.values():
            row.delayed = False

    # ── invariants ───────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def check_that_postgres_equals_the_model(self):
        jobs = self.read()
        assert set(jobs) == set(self.rows)
        for row in self.rows.values():
            job = jobs[row.id]
            assert (job["state"], job["attempt"], job["failures"]) == (row.state, row.attempt, row.failures), row
            assert job["crashes"] == row.crashes, row
            assert (job["cancel_requested_at"] is not None) == row.cancel_requested, row
            assert (job["finished_at"] is not None) == (row.state in ENDED), row
            if row.state == "queued":
                assert (job["published_at"] is not None) == row.published, row
                assert (job["run_at"] > job["now"]) == row.delayed, row
            if row.state == "running":
                assert (job["worker"], job["message_id"]) == (row.worker, row.message_id), row
                assert job["lease_until"] is not None
        self.check_that_ended_jobs_do_not_change(jobs)
        self.check_serial_keys(jobs)
        self.check_children(jobs)
        self.check_windows(jobs)

    def check_that_ended_jobs_do_not_change(self, jobs):
        for id_, job in jobs.items():
            if job["state"] in ENDED:
                job = {name: value for name, value in job.items() if name != "now"}
                assert self.ended.setdefault(id_, job) == job

    def check_serial_keys(self, jobs):
        """Check that at most one job of a key runs or waits."""
        present = [job["serial_key"] for job in jobs.values() if job["state"] in ("running", "waiting")]
        keys = [key for key in present if key]
        assert len(keys) == len(set(keys))

    def check_children(self, jobs):
        """Check that a waiting parent has the right number of unfinished children, at least one."""
        for id_, job in jobs.items():
            if job["state"] == "waiting":
                unfinished = [c for c in jobs.values() if c["parent_id"] == id_ and c["state"] not in ENDED]
                assert job["pending_children"] == len(unfinished) > 0

    def check_windows(self, jobs):
        """Check that jobs in flight do not exceed the window, apart from those claimed by an old message."""
        if self.relay_crashed:
            return
        for account_id in ACCOUNTS:
            for kind in KINDS:
                in_flight = [
                    id_
                    for id_, job in jobs.items()
                    if (job["account_id"], job["kind"]) == (account_id, kind)
                    and (job["state"] == "running" or (job["state"] == "queued" and job["published_at"]))
                    and not self.rows[id_].outside_window
                ]
                assert len(in_flight) <= WINDOW

    @invariant()
    def check_that_each_ending_is_recorded_once(self):
        with self.database.connection() as connection:
            counts = connection.execute("SELECT job_id, count(*) AS n FROM endings GROUP BY job_id").fetchall()
        assert {row["job_id"]: row["n"] for row in counts} == {r.id: 1 for r in self.rows.values() if r.endings}

    @invariant()
    def check_that_the_archive_has_no_gap_and_no_overlap(self):
        with self.database.connection() as connection:
            chunks = connection.execute(
                "SELECT job_id, first_sequence, last_sequence, tokens, events FROM job_events ORDER BY 1, 2"
            ).fetchall()
        following: dict[str, int] = {}
        for chunk in chunks:
            assert chunk["first_sequence"] == following.get(chunk["job_id"], 0)
            following[chunk["job_id"]] = chunk["last_sequence"] + 1
            lines = chunk["events"].split("\n")
            assert len(lines) == chunk["last_sequence"] - chunk["first_sequence"] + 1
            assert chunk["tokens"] == sum('"test.event"' in line for line in lines)

    def teardown(self):
        """Check liveness: from any state, sweeping, publishing and working end every job."""
        for _ in range(4 * len(self.rows) + 8):
            if all(row.state in ENDED for row in self.rows.values()):
                break
            with self.database.connection() as connection:
                connection.execute(
                    "UPDATE jobs SET run_at = now() - interval '3 days', lease_until = now() - interval '1 second', "
                    "published_at = CASE WHEN state = 'queued' AND published_at IS NOT NULL "
                    "THEN now() - interval '2 days' END"
                    " WHERE state IN ('queued', 'running', 'waiting')"
                )
            self.sweep()
            for row in self.rows.values():
                row.delayed = False
                if row.state == "running":
                    row.requeue(crashes=1)
                if row.state == "queued":
                    row.published = False
            with self.database.connection() as connection:
                connection.execute("UPDATE jobs SET run_at = now() WHERE run_at > now()")
            self.publish_claim_and_end()
        assert all(row.state in ENDED for row in self.rows.values())
        self.check_that_postgres_equals_the_model()
        self.check_that_each_ending_is_recorded_once()
        self.check_that_the_archive_has_no_gap_and_no_overlap()

    def publish_claim_and_end(self) -> None:
        """Publish, claim and end jobs once, without faults."""
        with self.database.transaction() as connection:
            due = outbox.lock_due_jobs(connection, dict.fromkeys(KINDS, WINDOW))
            outbox.mark_published(connection, due)
        for job in due:
            self.rows[job.id].published = True
            worker_attempt = self.deliver(f"last {self.next_number()}", job.id, next(iter(self.pids)))
            if worker_attempt is not None:
                out_of_attempts = worker_attempt.job.failures >= CATALOGUE[worker_attempt.job.kind].attempts
                cancelled = worker_attempt.job.cancel_requested_at is not None
                self.end(worker_attempt, "cancelled" if cancelled else "dead" if out_of_attempts else "completed", "")

    # ── the model's transitions ──────────────────────────────────────────────────────────────────────────────────

    def check_due(self, due: set[str]) -> None:
        """Check that as many jobs of each account and kind are due as its window allows, and only those that may run.

        Of a queue's suspects at most one is due, and none while one is in flight. The others count for the window.
        """
        for kind in KINDS:  # each has a queue of its own
            suspects = [row for row in self.rows.values() if row.kind == kind and row.suspect]
            suspect_in_flight = any(row.in_flight for row in suspects)
            assert len(due & {row.id for row in suspects}) <= (0 if suspect_in_flight else 1)
            for account_id in ACCOUNTS:
                pair = [row for row in self.rows.values() if (row.account_id, row.kind) == (account_id, kind)]
                may = {row.id for row in pair if self.is_due(row) and not (row.suspect and suspect_in_flight)}
                busy = [row for row in pair if row.in_flight]
                due_of_pair = due & {row.id for row in pair}
                assert due_of_pair <= may
                most = min(len(may), max(0, WINDOW - len(busy)))
                assert most - len(may & {row.id for row in suspects}) <= len(due_of_pair) <= most

    def is_due(self, row: ModelJob) -> bool:
        if row.state != "queued" or row.published or row.delayed:
            return False
        others = [
            other
            for other in self.rows.values()
            if other is not row and row.serial_key and other.serial_key == row.serial_key and other.state in UNFINISHED
        ]
        return not any(other.id < row.id or other.state != "queued" or other.published for other in others)

    def deliver(self, message_id: str, job_id: str, worker: str) -> WorkerAttempt | None:
        row = self.rows[job_id]
        with self.database.connection() as connection:
            job = attempts.claim(connection, job_id, message_id=message_id, worker=worker, lease=3600)
        if not self.model_delivery(row, message_id, worker):
            assert job is None
            self.lengthen_delays()
            return None
        assert job is not None
        assert (job.attempt, job.failures, job.state) == (row.attempt, row.failures, "running")
        with self.database.connection() as connection:
            last = read_archive(connection, job_id).last
        self.worker_attempts.append(WorkerAttempt(job, worker, last + 1))
        return self.worker_attempts[-1]

    def model_delivery(self, row: ModelJob, message_id: str, worker: str) -> bool:
        if row.state == "queued" and not row.delayed:
            if row.serial_key and any(
                other.serial_key == row.serial_key and other.state in ("running", "waiting")
                for other in self.rows.values()
            ):
                row.published = False
                return False
            row.outside_window = row.outside_window or not row.published
            row.state, row.published = "running", True
        elif row.state == "running" and row.message_id == message_id and row.worker != worker:
            if row.failures:
                row.requeue(crashes=1, delayed=True)
                return False
            row.failures += 1
            row.crashes += 1
        else:
            return False
        assert not (row.cancel_requested and row.attempt == 0), "a cancelled job without an attempt must not run"
        row.attempt += 1
        row.message_id, row.worker = message_id, worker
        return True

    def end(self, worker_attempt: WorkerAttempt, state: str, fault: str) -> None:
        ending_event = event(worker_attempt.next_sequence, f"sangha:job.{state}", {"job_id": worker_attempt.job.id})

        def record(connection):
            connection.execute("INSERT INTO endings VALUES (%s)", (worker_attempt.job.id,))

        ending = Ending(state, [ending_event], result={"by": worker_attempt.job.attempt}, record=record)
        events = [*worker_attempt.events, ending_event]
        step = lambda connection: attempts.end(connection, worker_attempt.job, ending, events)  # noqa: E731
        if self.step(worker_attempt, fault, step, within=self.database.batch):
            row = self.rows[worker_attempt.job.id]
            row.state, row.endings = state, row.endings + 1
            self.wake_parent(row)
            with self.database.connection() as connection:
                assert attempts.has_ended(connection, worker_attempt.job)

    def step(self, worker_attempt: WorkerAttempt, fault: str, statement, refused: bool = False, within=None) -> bool:
        """Run one transaction of a worker. Returns whether it took effect, not being fenced or rolled back."""
        if refused or not self.is_current(worker_attempt.job.id, worker_attempt.job.attempt):
            with pytest.raises(Fenced), (within or self.database.transaction)() as connection:
                statement(connection)
            return False
        with self.transaction_or_crash(fault == "crash", within=within) as connection:
            statement(connection)
        if fault == "unconfirmed":
            self.repeat(worker_attempt, statement)
        return fault != "crash"

    def repeat(self, worker_attempt: WorkerAttempt, statement) -> None:
        """Repeat a transaction whose confirmation was lost: it is fenced, or changes nothing."""
        try:
            with self.database.transaction() as connection:
                statement(connection)
        except Fenced:
            return
        with self.database.connection() as connection:
            assert attempts.is_current(connection, worker_attempt.job.id, worker_attempt.job.attempt)

    @contextmanager
    def transaction_or_crash(self, crashes: bool, within=None):
        """Open a transaction that may crash before its commit."""
        try:
            with (within or self.database.transaction)() as connection:
                yield connection
                if crashes:
                    raise Crash
        except Crash:
            return

    def is_current(self, job_id: str, attempt: int) -> bool:
        row = self.rows[job_id]
        return row.state == "running" and row.attempt == attempt

    def any_attempt(self) -> st.SearchStrategy[WorkerAttempt]:
        """Draw an attempt: mostly a current one, sometimes an earlier one."""
        current = [
            worker_attempt
            for worker_attempt in self.worker_attempts
            if self.is_current(worker_attempt.job.id, worker_attempt.job.attempt)
        ]
        return (
            st.sampled_from(self.worker_attempts[-8:])
            if not current
            else st.sampled_from(current) | st.sampled_from(self.worker_attempts)
        )

    def subtree(self, row: ModelJob) -> list[ModelJob]:
        below = [child for child in self.rows.values() if child.parent_id == row.id]
        return [descendant for child in below for descendant in self.subtree(child)] + [row]

    def model_cancel(self, root: ModelJob) -> set[str]:
        """Flag the subtree, children before their parents. Returns the ids of the jobs that ended at once."""
        ended = set()
        for row in self.subtree(root):
            if row.state not in UNFINISHED or row.cancel_requested:
                continue
            row.cancel_requested = True
            if row.state == "queued" and row.attempt == 0:
                row.state = "cancelled"
                ended.add(row.id)
                self.wake_parent(row)
            elif row.state != "running":
                row.state, row.published, row.delayed = "queued", False, False
        return ended

    def wake_parent(self, row: ModelJob) -> None:
        parent = self.rows.get(row.parent_id or "")
        if parent is not None and parent.state == "waiting":
            parent.pending -= 1
            if parent.pending == 0:
                parent.state, parent.published, parent.delayed = "queued", False, False

    def new_job(self, kind, account_id, serial_key, unique_key, opening, late=False) -> NewJob:
        number = self.next_number()
        id_ = f"job_{number + (100_000 if late else 500_000)}"
        events = [event(0, "test.opened", {"number": number})] if opening else []
        return NewJob(kind, account_id, id=id_, serial_key=serial_key, unique_key=unique_key, opening=events)

    def next_number(self) -> int:
        self.count += 1
        return self.count

    def model_insert(self, job: NewJob, parent_id: str | None = None) -> bool:
        """Return whether the job was inserted: a unique key is never free again."""
        if job.unique_key and self.unique.setdefault(job.unique_key, job.id) != job.id:
            return False
        self.rows[job.id] = ModelJob(
            job.id, job.account_id, job.kind, job.serial_key, parent_id, opened=bool(job.opening)
        )
        return True

    def publish(self, job_id: str) -> None:
        self.messages.append((f"message {self.next_number()}", job_id))

    def new_worker(self) -> None:
        number = self.next_number()
        self.pids[f"worker {number}"] = number
        with self.database.connection() as connection:
            queues = ["maintenance", "inference"]
            workers.register(
                connection, f"worker {number}", host="host", pid=number, pools=[], queues=queues, threads=1
            )

    def sweep(self) -> None:
        with self.database.connection() as connection:
            outbox.requeue_lost(connection)

    def set(self, row: ModelJob, assignments: str) -> None:
        with self.database.connection() as connection:
            connection.execute(f"UPDATE jobs SET {assignments} WHERE id = %s", (row.id,))

    def lengthen_delays(self) -> None:
        """Lengthen short delays, so that they do not pass between two statements."""
        with self.database.connection() as connection:
            connection.execute("UPDATE jobs SET run_at = run_at + interval '1 hour' WHERE run_at > now()")

    def read(self) -> dict[str, dict[str, Any]]:
        with self.database.connection() as connection:
            rows = connection.execute(
                "SELECT *, clock_timestamp() AS now FROM jobs WHERE account_id <> 'platform'"
            ).fetchall()
        return {row["id"]: row for row in rows}


@pytest.mark.timeout(300)  # takes 110 s on a busy machine
def test_the_protocol_holds(empty_database, kinds):
    with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE endings (job_id text NOT NULL)")
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")  # a crash of Postgres is not tested

    class BoundProtocol(JobProtocol):
        database = Database(empty_database.dsn, size=2)

    try:
        run_state_machine_as_test(
            BoundProtocol,
            settings=settings(
                max_examples=80,
                stateful_step_count=50,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        BoundProtocol.database.close()

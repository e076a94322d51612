"""The job protocol against a model of it, by an adversary.

Given jobs of two accounts, with parents, serial keys and unique keys, a relay that crashes anywhere, a broker that
duplicates, reorders, redelivers and loses messages, workers that stop between any two statements and come back late:

When any of these happens, in any order, then Postgres has what the model has, and the promises in `check_*` hold.
Whatever state that leads to, then sweeping, publishing and working lead every job to its end.

Everything is one thread: what statements do to one another when they meet is the subject of `test_cancellation.py`.
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
NAMES = ("test.work", "test.other")
WINDOW = 2
LIMIT = 24  # jobs in one example

UNFINISHED = ("queued", "running", "waiting")
LIVE_ENDS = ("completed", "failed", "cancelled", "dead")


@dataclass
class Row:
    """What the model knows of a job."""

    id: str
    account_id: str
    kind: str
    serial_key: str | None = None
    parent_id: str | None = None
    state: str = "queued"
    attempt: int = 0
    failures: int = 0
    published: bool = False
    delayed: bool = False
    flagged: bool = False
    message_id: str | None = None
    worker: str | None = None
    pending: int = 0
    opened: bool = False
    by_stale_message: bool = False  # runs although no mark let it into its window
    endings: int = 0

    def goes_back(self, *, failures: int = 0, delayed: bool = False) -> None:
        """Back to the outbox."""
        self.state, self.published, self.message_id, self.worker = "queued", False, None, None
        self.failures += failures
        self.delayed = delayed
        self.by_stale_message = False


@dataclass
class Held:
    """What a worker has in its hands: an attempt, present or past, and what it has said since its last checkpoint."""

    job: Job
    worker: str
    next_sequence: int
    said: list[Event] = field(default_factory=list)


class Crash(Exception):
    """A process dies inside a transaction."""


class Protocol(RuleBasedStateMachine):
    """Postgres, and beside it the model."""

    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, Row] = {}
        self.messages: list[tuple[str, str]] = []  # (message id, job id): whatever was published may come at any time
        self.held: list[Held] = []
        self.pids: dict[str, int] = {}
        self.unique: dict[str, str] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.crashed_relay = False
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
        """Some jobs are there from the beginning, some of them at work."""
        for _ in range(count):
            serial_key = data.draw(st.sampled_from([None, None, "s1"]))
            self.a_door_enqueues(
                data.draw(st.sampled_from(ACCOUNTS)), "test.work", False, serial_key, None, True, 1, False
            )
        self.all_goes_well(data)

    # ── doors ────────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.rows) < LIMIT)
    @rule(
        account_id=st.sampled_from(ACCOUNTS),
        kind=st.sampled_from(NAMES),
        late=st.booleans(),
        serial_key=st.sampled_from([None, None, "s1", "s2"]),
        unique_key=st.sampled_from([None, None, None, "u1", "u2"]),
        opening=st.booleans(),
        count=st.sampled_from([1, 1, 1, 4]),
        dies=st.sampled_from([False, False, False, True]),
    )
    def a_door_enqueues(self, account_id, kind, late, serial_key, unique_key, opening, count, dies):
        """An id is made before its row is: `late` ones come after rows with higher ids."""
        jobs = [self.new_job(kind, account_id, serial_key, unique_key, opening, late) for _ in range(count)]
        with self.maybe_dying(dies) as connection:
            for job in jobs:
                enqueue(connection, job)
        if not dies:
            for job in jobs:
                self.note_inserted(job)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), dies=st.sampled_from([False, False, False, True]))
    def a_door_cancels(self, data, dies):
        row = data.draw(st.sampled_from(list(self.rows.values())))
        told: list[str] = []
        with self.maybe_dying(dies) as connection:
            done = cancel(connection, row.id, row.account_id)
            told = done.running
        if not dies:
            assert set(told) == {r.id for r in self.subtree(row) if r.state == "running" and not r.flagged}
            assert set(done.ended) == self.note_cancelled(row)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def a_stranger_cancels_in_vain(self, data):
        row = data.draw(st.sampled_from(list(self.rows.values())))
        stranger = next(account_id for account_id in ACCOUNTS if account_id != row.account_id)
        with self.database.transaction() as connection:
            done = cancel(connection, row.id, stranger)
        assert (done.ended, done.running) == ({}, [])

    # ── relay, broker ────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        data=st.data(), crash=st.sampled_from(["no", "no", "no", "while publishing", "before the mark", "at the mark"])
    )
    def a_relay_passes(self, data, crash):
        with self.maybe_dying(crash != "no") as connection:
            due = outbox.lock_due_jobs(
                connection, dict.fromkeys(NAMES, WINDOW) | {"turn.run": 1, "maintenance.prune": 1}
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
        self.crashed_relay = self.crashed_relay or crash != "no"

    @rule(data=st.data(), fails=st.booleans())
    def a_worker_is_faster_than_the_mark(self, data, fails):
        """Between message and mark a worker has claimed the job, and perhaps put it back already."""
        with self.database.transaction() as connection:
            due = outbox.lock_due_jobs(connection, dict.fromkeys(NAMES, WINDOW))
            for job in due:
                self.publish(job.id)
            if due:
                first = self.deliver(*self.messages[-1], data.draw(st.sampled_from(list(self.pids))))
                assert first is not None
                self.rows[first.job.id].by_stale_message = False  # it was this very relay that let it in
                if fails:
                    self.fail(first, "")
            outbox.mark_published(connection, due)
        for job in due:
            row = self.rows[job.id]
            row.published = row.published or row.attempt == job.attempt

    @precondition(lambda self: any(row.state in ("running", "waiting") for row in self.rows.values()))
    @rule(data=st.data())
    def another_message_comes(self, data):
        """A second relay was unsure, or the sweeper impatient: there is nothing to do for it."""
        row = data.draw(st.sampled_from([row for row in self.rows.values() if row.state in ("running", "waiting")]))
        self.publish(row.id)
        assert self.deliver(*self.messages[-1], data.draw(st.sampled_from(list(self.pids)))) is None

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def a_message_is_delivered(self, data):
        """Any message that ever was, to any worker: late, twice, out of order; those never drawn are lost."""
        message_id, job_id = data.draw(st.sampled_from(self.messages[-12:]))
        self.deliver(message_id, job_id, data.draw(st.sampled_from(list(self.pids))))

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def the_newest_message_is_delivered(self, data):
        message_id, job_id = self.messages[-1]
        self.deliver(message_id, job_id, data.draw(st.sampled_from(list(self.pids))))

    @rule(data=st.data())
    def all_goes_well(self, data):
        """A relay passes, and what it sends is claimed."""
        self.a_relay_passes(data, "no")
        for message_id, job_id in self.messages[-8:]:
            if not self.rows[job_id].attempt:
                self.deliver(message_id, job_id, data.draw(st.sampled_from(list(self.pids))))

    # ── workers, living and dead ─────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.held)
    @rule(data=st.data(), count=st.integers(1, 3))
    def an_attempt_speaks(self, data, count):
        held = data.draw(self.any_held())
        for _ in range(count):
            held.said.append(event(held.next_sequence, "test.said", {"by": held.job.attempt}, tokens=1))
            held.next_sequence += 1

    @precondition(lambda self: any(held.said for held in self.held))
    @rule(data=st.data(), how=st.sampled_from(["", "", "dies", "unconfirmed"]))
    def an_attempt_saves_a_checkpoint(self, data, how):
        held = data.draw(self.any_held().filter(lambda held: held.said))
        if self.step(held, how, lambda connection: attempts.checkpoint(connection, held.job, held.said)):
            held.said = []

    @precondition(lambda self: self.held)
    @rule(data=st.data(), state=st.sampled_from(LIVE_ENDS), how=st.sampled_from(["", "", "dies", "unconfirmed"]))
    def an_attempt_ends(self, data, state, how):
        self.end(data.draw(self.any_held()), state, how)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["", "", "dies", "unconfirmed"]))
    def an_attempt_fails(self, data, how):
        self.fail(data.draw(self.any_held()), how)

    def fail(self, held: Held, how: str) -> None:
        error = {"code": "server_error", "message": "a test"}
        if self.step(held, how, lambda connection: attempts.retry(connection, held.job, error, "trace", held.said)):
            self.rows[held.job.id].goes_back(failures=1, delayed=True)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["", "", "dies", "unconfirmed"]))
    def an_attempt_is_released(self, data, how):
        self.release(data.draw(self.any_held()), how)

    @precondition(lambda self: any(map(self.is_overtaken, self.held)))
    @rule(data=st.data(), state=st.sampled_from(LIVE_ENDS))
    def a_zombie_comes_back(self, data, state):
        """While a later attempt runs, an earlier one tries everything that it can."""
        held = data.draw(st.sampled_from([held for held in self.held if self.is_overtaken(held)]))
        said = [event(held.next_sequence, "test.said", {"by": "a zombie"})]
        self.end(held, state, "")
        self.fail(held, "")
        self.release(held, "")
        self.step(held, "", lambda connection: attempts.checkpoint(connection, held.job, said))
        self.step(held, "", lambda connection: attempts.store_progress(connection, held.job, {}))
        self.step(held, "", lambda connection: attempts.store_rewind(connection, held.job, 0))
        self.step(held, "", lambda connection: attempts.wait_for_children(connection, held.job, [], said))

    def is_overtaken(self, held: Held) -> bool:
        row = self.rows[held.job.id]
        return row.state == "running" and row.attempt > held.job.attempt

    def release(self, held: Held, how: str) -> None:
        if self.step(held, how, lambda connection: attempts.release(connection, held.job, held.said)):
            self.rows[held.job.id].goes_back()

    @precondition(lambda self: self.held and len(self.rows) < LIMIT)
    @rule(
        data=st.data(),
        count=st.integers(0, 3),
        unique_key=st.sampled_from([None, None, None, "u1", "u3"]),
        opening=st.booleans(),
        how=st.sampled_from(["", "", "dies", "unconfirmed"]),
    )
    def an_attempt_waits_for_children(self, data, count, unique_key, opening, how):
        held = data.draw(self.any_held())
        account_id, parent = held.job.account_id, self.rows[held.job.id]
        jobs = [
            self.new_job(data.draw(st.sampled_from(NAMES)), account_id, None, unique_key, opening) for _ in range(count)
        ]
        refused = parent.flagged  # a cancel came first
        if self.step(
            held, how, lambda connection: attempts.wait_for_children(connection, held.job, jobs, held.said), refused
        ):
            inserted = [self.note_inserted(job, parent.id) for job in jobs]
            parent.goes_back()
            parent.pending = sum(inserted)
            parent.state = "waiting" if parent.pending else "queued"

    @precondition(lambda self: any(map(self.may_have_children, self.held)) and len(self.rows) < LIMIT)
    @rule(data=st.data(), count=st.sampled_from([3, 2, 1]), relayed=st.booleans())
    def a_present_attempt_waits_for_children(self, data, count, relayed):
        """As above, with what usually comes next."""
        held = data.draw(st.sampled_from([held for held in self.held if self.may_have_children(held)]))
        jobs = [self.new_job("test.other", held.job.account_id, None, None, False) for _ in range(count)]
        assert self.step(held, "", lambda connection: attempts.wait_for_children(connection, held.job, jobs, held.said))
        for job in jobs:
            self.note_inserted(job, held.job.id)
        parent = self.rows[held.job.id]
        parent.goes_back()
        parent.state, parent.pending = "waiting", count
        if relayed:
            self.all_goes_well(data)

    def may_have_children(self, held: Held) -> bool:
        return self.is_present(held.job.id, held.job.attempt) and not self.rows[held.job.id].flagged

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_worker_notes_progress(self, data):
        held = data.draw(self.any_held())
        self.step(held, "", lambda connection: attempts.store_progress(connection, held.job, {"done": 1}))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_worker_renews_its_leases(self, data):
        """Only what is still its own comes back, each with its flag."""
        worker = data.draw(st.sampled_from(sorted({held.worker for held in self.held})))
        held = {held.job.id: held.job.attempt for held in self.held if held.worker == worker}
        with self.database.connection() as connection:
            renewed = attempts.renew_leases(connection, held, lease=3600)
        mine = {id_ for id_, attempt in held.items() if self.is_present(id_, attempt)}
        assert renewed == {id_: self.rows[id_].flagged for id_ in mine}

    @rule(data=st.data())
    def a_supervisor_buries_a_worker(self, data):
        """The process is gone, another one starts; its attempts may still come back as zombies."""
        name = data.draw(st.sampled_from(list(self.pids)))
        held = [row for row in self.rows.values() if row.state == "running" and row.worker == name]
        assert workers.release_jobs_of_dead_worker(self.database, "host", self.pids.pop(name)) == len(held)
        for row in self.rows.values():
            if row.state == "queued":
                row.published = False
        for row in held:
            row.goes_back(failures=1, delayed=row.failures > 0)
        self.stretch_delays()
        self.new_worker()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: any(row.state == "running" for row in self.rows.values()))
    @rule(data=st.data())
    def a_lease_runs_out(self, data):
        row = data.draw(st.sampled_from([row for row in self.rows.values() if row.state == "running"]))
        self.set(row, "lease_until = now() - interval '1 second'")
        self.sweep()
        row.goes_back(failures=1, delayed=row.failures > 0)
        self.stretch_delays()

    @precondition(lambda self: any(row.state == "queued" and row.published for row in self.rows.values()))
    @rule(data=st.data())
    def a_message_is_missed(self, data):
        row = data.draw(st.sampled_from([row for row in self.rows.values() if row.state == "queued" and row.published]))
        self.set(row, "published_at = now() - interval '1 day', run_at = now() - interval '25 hours'")
        self.sweep()
        row.published = False

    @precondition(lambda self: any(row.delayed for row in self.rows.values()))
    @rule()
    def the_delays_pass(self):
        with self.database.connection() as connection:
            connection.execute("UPDATE jobs SET run_at = now() WHERE run_at > now()")
        for row in self.rows.values():
            row.delayed = False

    # ── promises ─────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def check_that_postgres_has_what_the_model_has(self):
        found = self.read()
        assert set(found) == set(self.rows)
        for row in self.rows.values():
            job = found[row.id]
            assert (job["state"], job["attempt"], job["failures"]) == (row.state, row.attempt, row.failures), row
            assert (job["cancel_requested_at"] is not None) == row.flagged, row
            assert (job["finished_at"] is not None) == (row.state in ENDED), row
            if row.state == "queued":
                assert (job["published_at"] is not None) == row.published, row
                assert (job["run_at"] > job["now"]) == row.delayed, row
            if row.state == "running":
                assert (job["worker"], job["message_id"]) == (row.worker, row.message_id), row
                assert job["lease_until"] is not None
        self.check_that_the_ended_never_change(found)
        self.check_serial_keys(found)
        self.check_children(found)
        self.check_windows(found)

    def check_that_the_ended_never_change(self, found):
        for id_, job in found.items():
            if job["state"] in ENDED:
                job = {name: value for name, value in job.items() if name != "now"}
                assert self.ended.setdefault(id_, job) == job

    def check_serial_keys(self, found):
        """At most one runs or waits, and what runs has overtaken nobody."""
        present = [job["serial_key"] for job in found.values() if job["state"] in ("running", "waiting")]
        keys = [key for key in present if key]
        assert len(keys) == len(set(keys))

    def check_children(self, found):
        """A waiting parent counts its unfinished children right, and has some."""
        for id_, job in found.items():
            if job["state"] == "waiting":
                unfinished = [c for c in found.values() if c["parent_id"] == id_ and c["state"] not in ENDED]
                assert job["pending_children"] == len(unfinished) > 0

    def check_windows(self, found):
        """No more of a kind in flight than the window, beyond those that a message from before brought in."""
        if self.crashed_relay:
            return
        for account_id in ACCOUNTS:
            for kind in NAMES:
                in_flight = [
                    id_
                    for id_, job in found.items()
                    if (job["account_id"], job["kind"]) == (account_id, kind)
                    and (job["state"] == "running" or (job["state"] == "queued" and job["published_at"]))
                    and not self.rows[id_].by_stale_message
                ]
                assert len(in_flight) <= WINDOW

    @invariant()
    def check_that_each_end_is_recorded_once(self):
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
            assert chunk["tokens"] == sum('"test.said"' in line for line in lines)

    def teardown(self):
        """Liveness: from any state, sweeping, publishing and working end every job."""
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
                    row.goes_back(failures=1)
                if row.state == "queued":
                    row.published = False
            with self.database.connection() as connection:
                connection.execute("UPDATE jobs SET run_at = now() WHERE run_at > now()")
            self.work_off()
        assert all(row.state in ENDED for row in self.rows.values())
        self.check_that_postgres_has_what_the_model_has()
        self.check_that_each_end_is_recorded_once()
        self.check_that_the_archive_has_no_gap_and_no_overlap()

    def work_off(self) -> None:
        """A relay and a worker that behave, once."""
        with self.database.transaction() as connection:
            due = outbox.lock_due_jobs(connection, dict.fromkeys(NAMES, WINDOW))
            outbox.mark_published(connection, due)
        for job in due:
            self.rows[job.id].published = True
            held = self.deliver(f"last {self.next_number()}", job.id, next(iter(self.pids)))
            if held is not None:
                tired = held.job.failures >= CATALOGUE[held.job.kind].attempts
                cancelled = held.job.cancel_requested_at is not None
                self.end(held, "cancelled" if cancelled else "dead" if tired else "completed", "")

    # ── the model's own steps ────────────────────────────────────────────────────────────────────────────────────

    def check_due(self, due: set[str]) -> None:
        """What the relay finds: of each account and kind, as many as its window has room for, and only what may go."""
        for account_id in ACCOUNTS:
            for kind in NAMES:
                pair = [row for row in self.rows.values() if (row.account_id, row.kind) == (account_id, kind)]
                may = {row.id for row in pair if self.may_go(row)}
                busy = [row for row in pair if row.state == "running" or (row.state == "queued" and row.published)]
                found = due & {row.id for row in pair}
                assert found <= may
                assert len(found) == min(len(may), max(0, WINDOW - len(busy)))

    def may_go(self, row: Row) -> bool:
        if row.state != "queued" or row.published or row.delayed:
            return False
        others = [
            other
            for other in self.rows.values()
            if other is not row and row.serial_key and other.serial_key == row.serial_key and other.state in UNFINISHED
        ]
        return not any(other.id < row.id or other.state != "queued" or other.published for other in others)

    def deliver(self, message_id: str, job_id: str, worker: str) -> Held | None:
        row = self.rows[job_id]
        with self.database.connection() as connection:
            job = attempts.claim(connection, job_id, message_id=message_id, worker=worker, lease=3600)
        if not self.note_delivered(row, message_id, worker):
            assert job is None
            self.stretch_delays()
            return None
        assert job is not None
        assert (job.attempt, job.failures, job.state) == (row.attempt, row.failures, "running")
        with self.database.connection() as connection:
            last = read_archive(connection, job_id).last
        self.held.append(Held(job, worker, last + 1))
        return self.held[-1]

    def note_delivered(self, row: Row, message_id: str, worker: str) -> bool:
        if row.state == "queued" and not row.delayed:
            if row.serial_key and any(
                other.serial_key == row.serial_key and other.state in ("running", "waiting")
                for other in self.rows.values()
            ):
                row.published = False
                return False
            row.by_stale_message = row.by_stale_message or not row.published
            row.state, row.published = "running", True
        elif row.state == "running" and row.message_id == message_id and row.worker != worker:
            if row.failures:
                row.goes_back(failures=1, delayed=True)
                return False
            row.failures += 1
        else:
            return False
        assert not (row.flagged and row.attempt == 0), "a cancelled untouched job never runs"
        row.attempt += 1
        row.message_id, row.worker = message_id, worker
        return True

    def end(self, held: Held, state: str, how: str) -> None:
        ending_event = event(held.next_sequence, f"sangha:job.{state}", {"job_id": held.job.id})

        def record(connection):
            connection.execute("INSERT INTO endings VALUES (%s)", (held.job.id,))

        ending = Ending(state, [ending_event], result={"by": held.job.attempt}, record=record)
        said = [*held.said, ending_event]
        step = lambda connection: attempts.end(connection, held.job, ending, said)  # noqa: E731
        if self.step(held, how, step, within=self.database.batch):
            row = self.rows[held.job.id]
            row.state, row.endings = state, row.endings + 1
            self.wake_parent(row)
            with self.database.connection() as connection:
                assert attempts.has_ended(connection, held.job)

    def step(self, held: Held, how: str, statement, refused: bool = False, within=None) -> bool:
        """One transaction of a worker. Returns whether it counts: a zombie is refused, a dying one leaves no trace."""
        if refused or not self.is_present(held.job.id, held.job.attempt):
            with pytest.raises(Fenced), (within or self.database.transaction)() as connection:
                statement(connection)
            return False
        with self.maybe_dying(how == "dies", within=within) as connection:
            statement(connection)
        if how == "unconfirmed":
            self.repeat(held, statement)
        return how != "dies"

    def repeat(self, held: Held, statement) -> None:
        """The commit's confirmation got lost, so the worker does it again: refused, or harmless."""
        try:
            with self.database.transaction() as connection:
                statement(connection)
        except Fenced:
            return
        with self.database.connection() as connection:
            assert attempts.is_current(connection, held.job.id, held.job.attempt)

    @contextmanager
    def maybe_dying(self, dies: bool, within=None):
        """A transaction, at the end of which the process may die."""
        try:
            with (within or self.database.transaction)() as connection:
                yield connection
                if dies:
                    raise Crash
        except Crash:
            return

    def is_present(self, job_id: str, attempt: int) -> bool:
        row = self.rows[job_id]
        return row.state == "running" and row.attempt == attempt

    def any_held(self) -> st.SearchStrategy[Held]:
        """Mostly the living, but any attempt that ever was may move."""
        living = [held for held in self.held if self.is_present(held.job.id, held.job.attempt)]
        return st.sampled_from(self.held[-8:]) if not living else st.sampled_from(living) | st.sampled_from(self.held)

    def subtree(self, row: Row) -> list[Row]:
        below = [child for child in self.rows.values() if child.parent_id == row.id]
        return [descendant for child in below for descendant in self.subtree(child)] + [row]

    def note_cancelled(self, root: Row) -> set[str]:
        """Flag the subtree, children before their parents. Returns the ids of those that ended on the spot."""
        ended = set()
        for row in self.subtree(root):
            if row.state not in UNFINISHED or row.flagged:
                continue
            row.flagged = True
            if row.state == "queued" and row.attempt == 0:
                row.state = "cancelled"
                ended.add(row.id)
                self.wake_parent(row)
            elif row.state != "running":
                row.state, row.published, row.delayed = "queued", False, False
        return ended

    def wake_parent(self, row: Row) -> None:
        parent = self.rows.get(row.parent_id or "")
        if parent is not None and parent.state == "waiting":
            parent.pending -= 1
            if parent.pending == 0:
                parent.state, parent.published, parent.delayed = "queued", False, False

    def new_job(self, kind, account_id, serial_key, unique_key, opening, late=False) -> NewJob:
        number = self.next_number()
        id_ = f"job_{number + (100_000 if late else 500_000)}"
        said = [event(0, "test.opened", {"number": number})] if opening else []
        return NewJob(kind, account_id, id=id_, serial_key=serial_key, unique_key=unique_key, opening=said)

    def next_number(self) -> int:
        self.count += 1
        return self.count

    def note_inserted(self, job: NewJob, parent_id: str | None = None) -> bool:
        """Whether it was inserted: a unique key is taken for ever."""
        if job.unique_key and self.unique.setdefault(job.unique_key, job.id) != job.id:
            return False
        self.rows[job.id] = Row(job.id, job.account_id, job.kind, job.serial_key, parent_id, opened=bool(job.opening))
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

    def set(self, row: Row, assignments: str) -> None:
        with self.database.connection() as connection:
            connection.execute(f"UPDATE jobs SET {assignments} WHERE id = %s", (row.id,))

    def stretch_delays(self) -> None:
        """A delay of a second could pass between two statements: make it one that can't."""
        with self.database.connection() as connection:
            connection.execute("UPDATE jobs SET run_at = run_at + interval '1 hour' WHERE run_at > now()")

    def read(self) -> dict[str, dict[str, Any]]:
        with self.database.connection() as connection:
            rows = connection.execute(
                "SELECT *, clock_timestamp() AS now FROM jobs WHERE account_id <> 'platform'"
            ).fetchall()
        return {row["id"]: row for row in rows}


def test_the_protocol_holds(empty_database, kinds):
    with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE endings (job_id text NOT NULL)")
        name = connection.info.dbname
        connection.execute(
            f"ALTER DATABASE {name} SET synchronous_commit = off"
        )  # a crash of Postgres is not the subject

    class Bound(Protocol):
        database = Database(empty_database.dsn, size=2)

    try:
        run_state_machine_as_test(
            Bound,
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
        Bound.database.close()

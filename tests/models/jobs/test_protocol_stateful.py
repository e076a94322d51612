"""A stateful test of the job protocol against a model.

Jobs of two accounts have lanes, serial keys and unique keys, and trees with budgets and deadlines. The relay crashes
anywhere; the broker duplicates, reorders, redelivers and loses messages; workers stop between any two statements, fall
silent and come back late; a failover loses the last transactions; calls to another system crash, are refused or remain
unknown; operators decide on these and replay jobs; ended jobs are moved; the previous version inserts and ends jobs
beside this one.

After every step Postgres equals the model (`protocol_model.py`), and the invariants of `protocol_checks.py` hold. From
every state sweeping, publishing and working end every job.

All steps run in one thread; `test_cancellation.py`, `test_children.py` and `test_outbox.py` test concurrent statements.
"""

from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from models.jobs import attempts, leases, outbox
from models.jobs.cancellation import cancel
from models.jobs.catalogue import CATALOGUE, JobKind
from models.jobs.ended_partitions import create_missing
from models.jobs.jobs import JoinRule
from models.journal.events import event

pytest.register_assert_rewrite(
    *(f"tests.models.jobs.protocol_{name}" for name in ("checks", "effects", "faults", "machine", "model", "time"))
)

from tests.models.jobs import protocol_relay  # noqa: E402 - after the line above
from tests.models.jobs.protocol_effects import Effects  # noqa: E402
from tests.models.jobs.protocol_faults import Faults  # noqa: E402
from tests.models.jobs.protocol_machine import (  # noqa: E402
    ACCOUNTS,
    CHILD_KEY,
    HOUR,
    KEYS,
    KINDS,
    LANES,
    MAX_JOBS,
    MIXED_KEY,
    RARELY,
    SHARDS,
    WorkerAttempt,
    action,
)

END_STATES = ("completed", "completed", "failed", "cancelled", "dead", "dead")
JOIN_RULES: tuple[JoinRule, ...] = ("all", "any", "fail_fast")

FAULTS = st.sampled_from(["", "", "", "crash", "unconfirmed", "lost"])


class JobProtocol(Faults):
    """The steps."""

    @rule(data=st.data())
    def act(self, data):
        """Take one of the possible steps. (As rules of their own most of them would be disabled in most examples.)"""
        possible = [each for each in ACTIONS if each.when(self)]
        weighted = [each.__name__ for each in possible for _ in range(each.weight)]
        name = data.draw(st.sampled_from(weighted), label="step")
        method = getattr(type(self), name)
        arguments = {key: data.draw(strategy, label=key) for key, strategy in method.strategies.items()}
        method(self, data, **arguments)

    @initialize(data=st.data(), count=st.integers(2, 5), tokens=st.integers(2, 8), deadline=st.booleans())
    def some_jobs(self, data, count, tokens, deadline):
        """Start with a tree with a budget, and with jobs, some of them older than the column `sequence`."""
        root = self.new_job("test.other", "acct_a", unique_key=data.draw(st.sampled_from([None, "u3"])))
        with self.database.transaction() as connection:
            self.insert(connection, root, deadline=deadline)
            self.open_budget(connection, root, tokens)
        self.model.insert(root, deadline="future" if deadline else "none")
        for _ in range(count):
            serial_key, unique_key = data.draw(
                st.sampled_from([("s1", None), ("s2", None), (None, "u1"), (None, "u2")])
            )
            if unique_key in self.model.unique:
                unique_key = None
            account_id = "acct_a" if unique_key else data.draw(st.sampled_from(ACCOUNTS))
            new = self.new_job("test.work", account_id, opening=True, serial_key=serial_key, unique_key=unique_key)
            with self.database.transaction() as connection:
                self.insert(connection, new)
                if old := data.draw(st.booleans()) and not self.model.of_key(serial_key):
                    connection.execute("UPDATE jobs SET sequence = NULL WHERE id = %s", (new.id,))
            self.model.insert(new)
            if old:
                self.jobs[new.id].sequence = 0
        self.publish_and_claim(data)

    # ── web processes ────────────────────────────────────────────────────────────────────────────────────────────

    @action(weight=3, when=lambda self: len(self.jobs) < MAX_JOBS,
        serial_key=st.sampled_from([None, *KEYS, MIXED_KEY]), late=st.booleans(), later=RARELY,
        deadline=RARELY, count=st.sampled_from([1, 1, 1, 4]), crashes=RARELY,
    )  # fmt: skip
    def enqueue_jobs(self, data, serial_key, late, later, deadline, count, crashes):
        """An id is generated before its row is inserted: `late` rows come after rows with higher ids."""
        new_jobs = [self.draw_job(data, serial_key, late) for _ in range(count)]
        with self.rolled_back(crashes) as connection:
            inserted = [self.insert(connection, new, later=later, deadline=deadline) for new in new_jobs]
        if not crashes:
            has_deadline = [deadline and not new.coalesce for new in new_jobs]
            assert inserted == [
                self.model.insert(new, later=later, deadline="future" if each else "none")
                for new, each in zip(new_jobs, has_deadline, strict=True)
            ]

    def draw_job(self, data, serial_key, late):
        coalesce = serial_key == MIXED_KEY and data.draw(st.booleans())
        return self.new_job(
            data.draw(st.sampled_from(KINDS)),
            data.draw(st.sampled_from(ACCOUNTS)),
            late=late,
            opening=data.draw(st.booleans()),
            serial_key=serial_key,
            lane=data.draw(st.sampled_from([None, *LANES])),
            unique_key=data.draw(st.sampled_from([None, "u1", "u2", "u3"])) if serial_key is None else None,
            coalesce=coalesce,
        )

    @action(weight=2, crashes=RARELY)
    def cancel_a_job(self, data, crashes):
        unfinished = [row for row in self.jobs.values() if row.unfinished]
        row = data.draw(st.sampled_from(unfinished) if unfinished else self.any_job())
        with self.rolled_back(crashes) as connection:
            done = cancel(connection, row.id, row.account_id)
        if not crashes:
            assert (set(done.ended), set(done.running)) == self.model.cancel(row)

    # ── relay and broker ─────────────────────────────────────────────────────────────────────────────────────────

    @action(
        place=st.sampled_from(SHARDS) | st.lists(st.sampled_from(ACCOUNTS + LANES), unique=True),
        crash=st.sampled_from(["no", "no", "no", "while publishing", "before the mark", "at the mark"]),
    )  # fmt: skip
    def relay_publishes(self, data, place, crash):
        """Publish a shard or some lanes. A crash while publishing sends a part."""
        with self.rolled_back(crash != "no", self.database.batch) as connection:
            if isinstance(place, int):
                due = self.lock_due_jobs_of_shard(connection, place)
            else:
                due = self.lock_due_jobs_of_lanes(connection, place)
            sent = due[: data.draw(st.integers(0, len(due)))] if crash == "while publishing" else due
            for job in sent:
                self.send(job.id)
            if crash in ("no", "at the mark"):
                self.mark(connection, sent)
        if crash == "no":
            self.model.mark(sent)

    @action(released=st.booleans())
    def worker_claims_before_the_mark(self, data, released):
        """Claim a job, and perhaps release it, between its publication and the mark."""
        with self.database.transaction() as connection:
            due = self.lock_due_jobs_of_lanes(connection, ACCOUNTS + LANES)
            for job in due:
                self.send(job.id)
            if due:
                attempt = self.deliver(*self.messages[-1], data.draw(self.any_worker()))
                if released:
                    self.release(attempt)
            self.mark(connection, due)
        self.model.mark(due)

    @action(when=lambda self: self.messages, newest=st.booleans(), lost=RARELY, again=st.booleans())
    def message_is_delivered(self, data, newest, lost, again):
        """Deliver any message to any worker: late, twice, out of order. Those never drawn are lost.

        If the reply to the claim is lost, the worker claims once more, or gives up.
        """
        message = self.messages[-1] if newest else data.draw(st.sampled_from(self.messages[-12:]))
        worker = data.draw(self.any_worker())
        attempt = self.deliver(*message, worker)
        if attempt is not None and lost:
            attempt.held = False
            if again:
                assert self.deliver(*message, worker, unsure=True) is not None

    @action(when=lambda self: any(row.state in ("running", "waiting") for row in self.jobs.values()))
    def message_is_delivered_again(self, data):
        """Nothing takes a running job: neither its own message nor another one."""
        row = data.draw(st.sampled_from([row for row in self.jobs.values() if row.state in ("running", "waiting")]))
        assert self.deliver(row.message_id or "a duplicate", row.id, data.draw(self.any_worker())) is None
        assert self.deliver("a duplicate", row.id, row.worker or "a worker", unsure=True) is None
        for other in self.model.workers.keys() - {row.worker}:
            assert self.deliver(row.message_id or "a duplicate", row.id, other, unsure=True) is None

    @action(
        weight=2,
    )
    def jobs_are_published_and_claimed(self, data):
        self.publish_and_claim(data)

    @action(queue=st.sampled_from(["maintenance", "inference"]))
    def queue_is_lost(self, data, queue):
        """Lose the messages of a queue, which was deleted with its node."""
        self.messages = [message for message in self.messages if self.jobs[message[1]].queue != queue]
        with self.database.connection() as connection:
            unpublished = outbox.unpublish_queues(connection, [queue])
        assert unpublished == self.model.unpublish(lambda row: row.queue == queue)

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────

    @action(count=st.integers(1, 3), stored=st.booleans(), fault=FAULTS)
    def attempt_writes(self, data, count, stored, fault):
        """Write events, and store them with a checkpoint."""
        attempt = self.draw_attempt(data)
        for _ in range(count):
            attempt.events.append(event(attempt.next_sequence, "test.event", {"by": attempt.job.attempt}, tokens=1))
            attempt.next_sequence += 1
        self.step(attempt, fault, lambda c: attempts.store_progress(c, attempt.job, {"done": count}), keeps=True)
        if stored and self.step(
            attempt, fault, lambda c: attempts.checkpoint(c, attempt.job, attempt.events), keeps=True
        ):
            attempt.events = []

    @action(weight=4, state=st.sampled_from(END_STATES), fault=FAULTS, follows=RARELY, overdraws=RARELY)
    def attempt_ends(self, data, state, fault, follows, overdraws):
        attempt = self.draw_attempt(data)
        key = data.draw(st.sampled_from([None, *KEYS, attempt.job.serial_key]))
        follow_ups = [self.new_job("test.work", attempt.job.account_id, serial_key=key)]
        follow_ups = follow_ups if follows and len(self.jobs) < MAX_JOBS else []
        if self.end(attempt, state, fault, follow_ups, overdraws=overdraws):
            with self.database.connection() as connection:
                assert attempts.has_ended(connection, attempt.job)
                assert attempts.may_write(connection, *attempt.claim)

    @action(weight=2, fault=FAULTS, how=st.sampled_from(["fails", "is released", "is delayed", "is abandoned"]))
    def attempt_stops(self, data, fault, how):
        attempt = self.draw_attempt(data)
        if how == "fails":
            self.fail(attempt, fault)
        elif how == "is abandoned":
            self.abandon(attempt)
        else:
            self.release(attempt, fault, delay=3600 if how == "is delayed" else 0)

    @action(
        weight=2,
        when=lambda self: any(map(self.is_superseded, self.worker_attempts)),
        state=st.sampled_from(END_STATES),
    )
    def superseded_attempt_continues(self, data, state):
        """Let an older attempt try every step while another one runs."""
        attempt = data.draw(st.sampled_from([each for each in self.worker_attempts if self.is_superseded(each)]))
        events = [event(attempt.next_sequence, "test.event", {"by": "a superseded attempt"})]
        self.end(attempt, state)
        self.fail(attempt)
        self.release(attempt)
        self.wait(attempt, [])
        self.perform(attempt)
        self.step(attempt, "", lambda c: attempts.checkpoint(c, attempt.job, events))
        self.step(attempt, "", lambda c: attempts.store_progress(c, attempt.job, {}))
        self.step(attempt, "", lambda c: attempts.store_rewind(c, attempt.job, 0))
        with self.database.connection() as connection:
            leases.abandon(connection, attempt.job)
            leases.release_unknown(connection, *attempt.claim)
            assert not attempts.is_current(connection, *attempt.claim)
            assert not attempts.may_write(connection, *attempt.claim)
            assert not attempts.has_ended(connection, attempt.job)

    def is_superseded(self, attempt: WorkerAttempt) -> bool:
        return self.jobs[attempt.job.id].state == "running" and not self.model.is_current(*attempt.claim)

    # ── trees ────────────────────────────────────────────────────────────────────────────────────────────────────

    @action(weight=3, when=lambda self: len(self.jobs) < MAX_JOBS,
        count=st.integers(0, 3), join_rule=st.sampled_from(JOIN_RULES), timeout=st.booleans(),
        unique_key=st.sampled_from([None, None, "u1", "u2", "u3", "above"]), fault=FAULTS,
    )  # fmt: skip
    def attempt_waits_for_children(self, data, count, join_rule, timeout, unique_key, fault):
        """Wait for new children, for a job with a unique key, or again for those that are unfinished."""
        attempt = self.draw_attempt(data)
        if unique_key == "above":
            unique_key = self.key_above(attempt)
        new_jobs = self.new_children(data, attempt, count, unique_key)
        self.wait(attempt, new_jobs, join_rule, timeout, data.draw(st.integers(0, 3)), fault)

    @action(
        weight=3,
        when=lambda self: any(map(self.may_wait, self.current_attempts())) and len(self.jobs) < MAX_JOBS,
        count=st.sampled_from([3, 2, 1]),
        join_rule=st.sampled_from(JOIN_RULES),
        tokens=st.integers(1, 3),
        published=st.booleans(),
    )
    def current_attempt_waits_for_children(self, data, count, join_rule, tokens, published):
        """Let a current attempt wait for its children, and usually run these."""
        possible = sorted(filter(self.may_wait, self.current_attempts()), key=lambda each: -each.job.depth)
        attempt = data.draw(st.sampled_from([possible[0], *possible]))
        self.wait(attempt, self.new_children(data, attempt, count, None), join_rule, tokens=tokens)
        if published:
            self.publish_and_claim(data)
            children = [each for each in self.current_attempts() if each.job.parent_id == attempt.job.id]
            for child in children[:1]:
                self.end(child, data.draw(st.sampled_from(END_STATES)))

    def key_above(self, attempt: WorkerAttempt) -> str | None:
        """Return the unique key of a job above this one, which is not adopted."""
        above = self.model.ancestors(self.jobs[attempt.job.id])
        return next((key for key, job_id in self.model.unique.items() if job_id in above), None)

    def new_children(self, data, attempt, count, unique_key):
        """Make children, some with a deadline of their own, some with a serial key, which one above may hold."""
        return [
            self.new_job(
                data.draw(st.sampled_from(KINDS)),
                attempt.job.account_id,
                opening=data.draw(st.booleans()),
                unique_key=unique_key,
                serial_key=data.draw(st.sampled_from([None, None, CHILD_KEY])) if unique_key is None else None,
                deadline_at=datetime.now(UTC) + HOUR if data.draw(RARELY) else None,
            )
            for _ in range(count)
        ]


ACTIONS = [
    method
    for holder in (JobProtocol, Faults, Effects)
    for method in vars(holder).values()
    if hasattr(method, "strategies")
]


@pytest.fixture
def protocol_kinds(kinds, monkeypatch):
    """Kinds of two queues, two of one queue with different priorities."""
    monkeypatch.setitem(CATALOGUE, "test.urgent", JobKind(queue="maintenance", priority=-1, attempts=2, backoff=600))


@pytest.fixture
def small_limits(monkeypatch):
    """A pass of the relay visits few lanes, and leaves a queue out that has few jobs in flight."""
    for name in ("LANES", "DEPTH", "SMALLEST_DEPTH"):
        monkeypatch.setattr(outbox, name, getattr(protocol_relay, name))


@pytest.mark.timeout(1200)  # takes minutes on a busy machine
def test_the_protocol_holds(empty_database, pooler, protocol_kinds, small_limits):
    with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE endings (job_id text NOT NULL)")
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")  # a crash of Postgres is not tested

    create_missing(empty_database)

    class BoundProtocol(JobProtocol):
        database = empty_database

    run_state_machine_as_test(
        BoundProtocol,
        settings=settings(
            max_examples=8 if pooler else 80,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

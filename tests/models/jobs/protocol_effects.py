"""Calls to another system, and the moving of ended jobs, in the job protocol's stateful test."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from models.jobs import attempts, effects, ended_jobs
from models.journal.archive import last_archived, read_archive
from models.platform.errors import EffectUnknown, Fenced, PermanentFailure
from pipelines.effects import KEY_LIFETIME, perform
from tests.models.jobs.protocol_checks import BY_OPERATOR
from tests.models.jobs.protocol_machine import ProtocolMachine, WorkerAttempt, action
from tests.pipelines.effect_provider import Crash, CrashingDatabase

#: The transaction around which a process dies, and whether it dies after the commit.
CRASHES = {"before the intent": (0, False), "before the call": (0, True), "before the record": (1, False)}

STEP = "charge"

#: What an operator decides about a call.
DECISIONS = {"done": BY_OPERATOR, "failed": {"code": "by_operator", "message": "It was not charged."}}

#: The facts of a job that a move keeps.
KEPT = """
SELECT id, state, attempt, failures, crashes, parent_id, root_id, depth, sequence, result, error,
       cancel_requested_at, finished_at
FROM all_jobs WHERE account_id <> 'platform' ORDER BY id
"""


class Effects(ProtocolMachine):
    """Calls that crash, are refused, looked up or left to an operator; and ended jobs."""

    def perform(
        self,
        attempt: WorkerAttempt,
        fault: str = "",
        *,
        refuses: bool = False,
        askable: bool = True,
        late: bool = False,
    ) -> None:
        """Make the call of a job, or complete one of an earlier attempt; the process dies at the given point.

        askable  whether the other system can be asked for the outcome of an earlier call
        late     the other system does not recognise the key any more
        """
        job_id, current = attempt.job.id, self.model.is_current(*attempt.claim)
        before = self.model.effects.get(job_id)
        number, committed = CRASHES.get(fault, (-1, False))
        context: Any = SimpleNamespace(
            job=attempt.job,
            database=CrashingDatabase(self.database, number, committed=committed),
            check=lambda: None,
            should_stop=lambda: True,
        )
        self.provider.refuses = refuses
        outcome, result = "", None
        try:
            look_up = self.provider.look_up if askable else None
            lifetime = timedelta(0) if late else KEY_LIFETIME
            result = perform(context, STEP, {"of": job_id}, self.provider.call, look_up, key_lifetime=lifetime)
            outcome = "done"
        except Crash:
            outcome = "crash"
        except EffectUnknown:
            outcome = "unknown"
        except PermanentFailure:
            outcome = "failed"
        except Fenced:
            outcome = "fenced"
        assert (outcome == "fenced") == (not current)
        if current:
            self.model_call(job_id, before, outcome, fault, askable=askable, late=late)
            assert outcome != "done" or result in (self.provider.outcomes.get(self.key(job_id)), DECISIONS["done"])

    def model_call(
        self, job_id: str, before: str | None, outcome: str, fault: str, *, askable: bool, late: bool
    ) -> None:
        """Let the model make a call, and compare the outcomes."""
        if before is None and fault == "before the intent":
            assert outcome == "crash"
            return
        if before in ("done", "failed", "unknown"):
            assert outcome == (before if fault in ("", "before the record") else "crash")
            return
        self.model.effects[job_id] = "intent"
        if fault:
            assert outcome == "crash"
            return
        made = self.key(job_id) in self.provider.outcomes
        unknown = before == "intent" and (not askable or (late and not made))
        self.model.effects[job_id] = "unknown" if unknown else self.provider_state(job_id)
        assert outcome == self.model.effects[job_id]

    def provider_state(self, job_id: str) -> str:
        """Return the state of an effect whose outcome is recorded."""
        outcome = self.provider.outcomes[self.key(job_id)]
        return "failed" if isinstance(outcome, PermanentFailure) else "done"

    def key(self, job_id: str) -> str:
        return effects.idempotency_key(job_id, STEP)

    @action(
        weight=3,
        fault=st.sampled_from(["", *CRASHES]),
        refuses=st.booleans(),
        askable=st.booleans(),
        late=st.booleans(),
        ends=st.booleans(),
    )
    def attempt_calls_another_system(self, data, fault, refuses, askable, late, ends):
        """Make a call, or complete one of an earlier attempt. A job with an unknown effect fails."""
        open_calls = [each for each in self.current_attempts() if self.model.effects.get(each.job.id) == "intent"]
        attempt = data.draw(st.sampled_from(open_calls)) if open_calls else self.draw_attempt(data)
        self.perform(attempt, fault, refuses=refuses, askable=askable, late=late)
        if ends and self.model.effects.get(attempt.job.id) == "unknown":
            self.end(attempt, "failed", code="effect_unknown")

    @action(when=lambda self: any(state != "done" for state in self.model.effects.values()))
    def answer_arrives_late(self, data):
        """Record the outcome of a call whose attempt has been superseded, or whose job has ended."""
        called = [job_id for job_id in self.model.effects if self.key(job_id) in self.provider.outcomes]
        if not called:
            return
        job_id = data.draw(st.sampled_from(called))
        outcome = self.provider.outcomes[self.key(job_id)]
        with self.database.transaction() as connection:
            if isinstance(outcome, PermanentFailure):
                error = {"code": outcome.code, "message": outcome.message}
                stored = effects.record_failed(connection, job_id, STEP, error)
            else:
                stored = effects.record_done(connection, job_id, STEP, outcome)
        if self.model.effects[job_id] in ("intent", "unknown"):
            self.model.effects[job_id] = self.provider_state(job_id)
        assert stored.state == self.model.effects[job_id]

    @action(weight=2, when=lambda self: self.model.effects, decision=st.sampled_from(["done", "failed"]))
    def operator_resolves_an_effect(self, data, decision):
        """Decide on any call; only those are changed that no attempt can resolve."""
        job_id = data.draw(st.sampled_from(list(self.model.effects)))
        listed = {each for each in self.model.effects if self.is_unresolved(each)}
        with self.database.transaction() as connection:
            assert {effect.job_id for effect in effects.list_unknown(connection)} == listed
            resolved = effects.resolve(connection, job_id, STEP, decision, DECISIONS[decision])
        assert resolved == (job_id in listed)
        if resolved:
            self.model.effects[job_id] = decision

    def is_unresolved(self, job_id: str) -> bool:
        """Return whether only an operator can resolve the effect of a job."""
        state, job = self.model.effects[job_id], self.jobs.get(job_id)
        return state == "unknown" or (state == "intent" and (job is None or not job.unfinished))

    # ── ended jobs ───────────────────────────────────────────────────────────────────────────────────────────────

    @action(weight=2, when=lambda self: any(not job.unfinished for job in self.jobs.values()), limit=st.integers(1, 9))
    def ended_jobs_are_moved(self, data, limit):
        """Move the ended trees to their table, some at a time: with the same facts and events, and out of reach."""
        before, events = self.kept()
        expected = self.model.move()
        after, moved = None, 0
        while True:
            with self.database.transaction() as connection:
                batch = ended_jobs.move_batch(connection, limit, age=0.0, after=after)
            moved, after = moved + batch.moved, batch.next
            if after is None:
                break
        assert moved == len(expected)
        assert self.kept() == (before, events)
        for attempt in [each for each in self.worker_attempts if each.job.id in self.model.moved]:
            self.check_moved(attempt)
        self.worker_attempts = [each for each in self.worker_attempts if each.job.id in self.jobs]
        self.messages = [message for message in self.messages if message[1] in self.jobs]
        for job_id in expected:
            self.ended_rows.pop(job_id, None)

    def kept(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the facts of all jobs, and the data of their events; the tokens of each event are not kept."""
        with self.database.connection() as connection:
            rows = connection.execute(KEPT).fetchall()
            archived = {row["id"]: read_archive(connection, row["id"]).events for row in rows}
            return rows, {
                job_id: [(event.sequence, event.data) for event in events] for job_id, events in archived.items()
            }

    def check_moved(self, attempt: WorkerAttempt) -> None:
        """Check that an attempt cannot write to a moved job."""
        with self.database.connection() as connection:
            assert not attempts.is_current(connection, *attempt.claim)
            assert attempts.claim(connection, attempt.job.id, message_id="late", worker=attempt.worker) is None
            assert last_archived(connection, attempt.job.id) >= 0

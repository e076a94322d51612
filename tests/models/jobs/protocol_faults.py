"""Faults and other rare steps of the job protocol's stateful test."""

from unittest.mock import patch

from hypothesis import strategies as st

from models.jobs import attempts, dead_jobs, leases, outbox, workers
from models.journal.events import event
from tests.models.jobs.protocol_effects import Effects
from tests.models.jobs.protocol_machine import ACCOUNTS, KEYS, LANES, MAX_JOBS, RARELY, action

#: What the previous version does when it ends a job.
WITHOUT_UNBLOCKING = attempts.AFTER_END.replace("WHERE blocked AND id", "WHERE false AND id")


class Faults(Effects):
    """Failovers, dead workers, dead jobs, passing time, and the previous version's steps."""

    # ── failovers ────────────────────────────────────────────────────────────────────────────────────────────────

    @action(when=lambda self: any(map(self.model.is_claimable, self.jobs.values())), reclaimed=st.booleans())
    def failover_loses_a_claim(self, data, reclaimed):
        """Promote a standby that lacks a claim. The attempt goes on, and another claim gets its number."""
        row = data.draw(st.sampled_from(list(filter(self.model.is_claimable, self.jobs.values()))))
        worker = data.draw(self.any_worker())
        with self.rolled_back(True) as connection:
            job = attempts.claim(connection, row.id, message_id="a lost message", worker=worker)
        lost = self.hold(job, worker)
        if reclaimed:
            again = self.deliver("a later message", row.id, data.draw(self.any_worker()))
            assert (again.job.attempt, again.job.claim_id == job.claim_id) == (lost.job.attempt, False)

    @action(weight=2, when=lambda self: any(attempt.job.serial_key for attempt in self.current_attempts()))
    def failover_loses_an_end_and_what_followed(self, data):
        """Promote a standby that lacks an end, and the publication and the claim of the next job of the serial key.

        The messages remain.
        """
        attempt = data.draw(st.sampled_from([each for each in self.current_attempts() if each.job.serial_key]))
        ending_event = event(attempt.next_sequence, "sangha:job.completed", {})
        ending = attempts.Ending("completed", [ending_event])
        worker, claimed = data.draw(self.any_worker()), []
        with self.rolled_back(True) as connection:
            attempts.end(connection, attempt.job, ending, [*attempt.events, ending_event])
            due = outbox.lock_due_jobs_of_lanes(connection, self.windows(connection), ACCOUNTS + LANES)
            outbox.mark_published(connection, due)
            for job in due:
                self.send(job.id)
                claimed.append(attempts.claim(connection, job.id, message_id=self.messages[-1][0], worker=worker))
        attempt.held = False
        for job in claimed:
            self.hold(job, worker)

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────

    @action()
    def worker_sends_a_heartbeat(self, data):
        """Renew the lease, compare the held jobs with their rows, and put back those that the worker does not know."""
        name = data.draw(self.any_worker())
        self.renew(name)
        own = [attempt for attempt in self.worker_attempts if attempt.worker == name and attempt.held]
        held = {attempt.job.id: attempt for attempt in own}
        running = {row.id: row for row in self.jobs.values() if row.state == "running" and row.worker == name}
        with self.database.connection() as connection:
            claims = leases.check_claims(connection, name, {job_id: each.job for job_id, each in held.items()})
            for job_id, (attempt, claim_id) in claims.unknown.items():
                leases.release_unknown(connection, job_id, attempt, claim_id)
        current = [job_id for job_id, attempt in held.items() if self.model.is_current(*attempt.claim)]
        assert claims.current == {job_id: self.jobs[job_id].cancel_requested for job_id in current}
        assert claims.unknown == {
            job_id: (row.attempt, row.claim_id) for job_id, row in running.items() if job_id not in held
        }
        for attempt in own:
            attempt.held = self.model.is_current(*attempt.claim)
        for job_id in claims.unknown:
            self.jobs[job_id].requeue()

    @action(threads=st.integers(1, 2))
    def worker_dies(self, data, threads):
        """Release the jobs of a dead worker, and start another. Its attempts may still write later."""
        name = data.draw(self.any_worker())
        worker = self.model.workers.pop(name)
        given_back = self.model.give_back(lambda other: other == name)
        self.model.unpublish(lambda row: row.queue in worker.threads)
        assert workers.release_jobs_of_dead_worker(self.database, "host", worker.pid).running == len(given_back)
        self.delay([row for row in given_back if row.later])
        self.start_worker(threads)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @action(weight=3,
        column=st.sampled_from(["run_at", "wait_until", "deadline_at", "seen_at"]),
        all_rows=st.booleans(), swept=st.sampled_from([True, True, False]), unblock=st.booleans(),
    )  # fmt: skip
    def time_passes(self, data, column, all_rows, swept, unblock):
        """Jobs become due, waits last long enough, deadlines pass, or a worker falls silent."""
        if column == "seen_at":
            self.fall_silent(data.draw(self.any_worker()))
        else:
            rows = self.with_future(column)
            self.pass_time([row for row in rows if all_rows or data.draw(st.booleans())], column)
        if swept:
            self.sweep(unblock=unblock)

    @action(
        when=lambda self: any(row.state == "queued" and row.published for row in self.jobs.values()),
        repeats=st.integers(0, 2),
        early=st.booleans(),
    )
    def message_is_not_claimed_for_long(self, data, repeats, early):
        """Lose messages of a job, and look for the last one around the time after which it is sent again."""
        row = data.draw(st.sampled_from([row for row in self.jobs.values() if row.state == "queued" and row.published]))
        for _ in range(repeats):
            self.age_messages([row], 7200)
            self.sweep()
            self.publish()
        if row.published:
            self.age_messages([row], 30 * 2 ** (row.sends - 1) + (-12 if early else 12))
            self.sweep()
            self.age_messages([row], -3600)

    # ── a rolling deploy ─────────────────────────────────────────────────────────────────────────────────────────

    @action(when=lambda self: len(self.jobs) < MAX_JOBS, weight=2, later=RARELY)
    def previous_version_works(self, data, later):
        """It inserts neither blocked nor scheduled jobs, and does not unblock the next job of a serial key."""
        serial_key = KEYS[-1]
        self.model.mixed_keys.add(serial_key)
        running = [attempt for attempt in self.current_attempts() if attempt.job.serial_key == serial_key]
        if running:
            with (
                patch.object(attempts, "AFTER_END", WITHOUT_UNBLOCKING),
                patch.object(self.model, "unblock_next", lambda *_: set()),
            ):
                self.end(running[0], "completed")
            return
        new = self.new_job("test.work", data.draw(st.sampled_from(ACCOUNTS)), serial_key=serial_key)
        with self.database.transaction() as connection:
            self.insert(connection, new, later=later)
            connection.execute("UPDATE jobs SET state = 'queued', blocked = false WHERE id = %s", (new.id,))
        self.model.insert(new, later=later)
        self.jobs[new.id].state, self.jobs[new.id].blocked = "queued", False

    # ── dead jobs ────────────────────────────────────────────────────────────────────────────────────────────────

    @action(weight=2, when=lambda self: any(not each.job.parent_id for each in self.current_attempts()))
    def job_dies_and_is_replayed(self, data):
        """Replay a job, usually while a later one of its serial key is queued."""
        attempts_of_roots = [each for each in self.current_attempts() if not each.job.parent_id]
        with_key = [each for each in attempts_of_roots if each.job.serial_key]
        attempt = data.draw(st.sampled_from(with_key or attempts_of_roots))
        row = self.jobs[attempt.job.id]
        if row.parent_id is not None:  # it was adopted
            return
        if attempt.job.serial_key in KEYS and len(self.jobs) < MAX_JOBS:
            later = self.new_job("test.work", attempt.job.account_id, serial_key=attempt.job.serial_key)
            with self.database.transaction() as connection:
                self.insert(connection, later)
            self.model.insert(later)
        self.end(attempt, "dead")
        with self.database.transaction() as connection:
            assert dead_jobs.replay(connection, [row.id]) == [row.id]
        assert self.model.replay(row)

    @action(
        weight=2,
        when=lambda self: any(row.state == "dead" or row.error_code for row in self.jobs.values()),
        discards=RARELY,
        crashes=RARELY,
    )
    def operator_handles_dead_jobs(self, data, discards, crashes):
        """Replay or discard some jobs; those that are not dead are left out, unless their effect is unknown."""
        dead_rows = [row for row in self.jobs.values() if row.state == "dead" or row.error_code]
        dead = st.sampled_from([row for row in dead_rows if row.parent_id is None] or dead_rows)
        rows = data.draw(st.lists(dead | dead | self.any_job(), min_size=1, max_size=3, unique_by=id))
        handle, model = (dead_jobs.discard, self.model.discard) if discards else (dead_jobs.replay, self.model.replay)
        with self.rolled_back(crashes) as connection:
            handled = handle(connection, [row.id for row in rows])
        if not crashes:
            assert set(handled) == {row.id for row in rows if model(row)}
            for job_id in handled:
                del self.ended_rows[job_id]

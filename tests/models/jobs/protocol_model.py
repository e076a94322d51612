"""A model of the job protocol in plain Python: what each transition does to the rows.

`test_protocol_stateful.py` compares it with Postgres.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from models.jobs.jobs import NewJob
from tests.models.jobs.protocol_relay import Relay
from tests.models.jobs.protocol_rows import ModelJob, ModelWorker, Time

#: The states of ended jobs that are moved.
MOVABLE = ("completed", "failed", "cancelled")


class Model(Relay):
    """The transitions."""

    # ── insert ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def insert(
        self, new: NewJob, parent: ModelJob | None = None, *, later: bool = False, deadline: Time = "none"
    ) -> bool:
        """Return whether the job was inserted: a unique key is free again once its job is moved."""
        if new.coalesce and any(
            job.kind == new.kind and job.state in ("scheduled", "queued") for job in self.of_key(new.serial_key)
        ):
            return False
        if new.unique_key and self.unique.setdefault(new.unique_key, new.id) != new.id:
            return False
        self.jobs[new.id] = ModelJob(
            new.id,
            new.account_id,
            new.kind,
            self.next_number(),
            serial_key=new.serial_key,
            parent_id=parent.id if parent else None,
            root_id=(parent.root_id or parent.id) if parent else None,
            depth=parent.depth + 1 if parent else 0,
            lane=new.lane,
            coalesce=new.coalesce,
            state="scheduled" if later else "queued",
            later=later,
            blocked=not new.coalesce and bool(self.of_key(new.serial_key)),
            deadline=deadline,
        )
        return True

    def unblock_next(self, serial_key: str | None) -> set[str]:
        """Unblock the first job of a key. Returns its lane if it was blocked and is due now."""
        unblocked = [job for job in self.of_key(serial_key)[:1] if job.blocked]
        for job in unblocked:
            job.blocked = False
        return {job.fairness_lane for job in unblocked if job.state == "queued"}

    def unblock_left(self) -> None:
        for job in self.jobs.values():
            if job.blocked and job.state in ("scheduled", "queued") and not self.earlier(job):
                job.blocked = False

    # ── claim and end ────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, job_id: str, message_id: str, worker: str, *, unsure: bool = False) -> ModelJob | None:
        """Return the claimed job, or None."""
        if job_id not in self.jobs:  # it was moved
            return None
        job = self.jobs[job_id]
        if not self.is_claimable(job) and not (
            unsure and job.state == "running" and (job.message_id, job.worker) == (message_id, worker)
        ):
            if job.state == "queued" and (job.blocked or (self.runs_beside(job) and not job.later)):
                job.published = False
            return None
        assert not (job.cancel_requested and job.attempt == 0), "a cancelled job without an attempt must not run"
        job.state, job.published, job.sends, job.attempt = "running", True, 0, job.attempt + 1
        job.message_id, job.worker, job.blocked = message_id, worker, False
        return job

    def is_claimable(self, job: ModelJob) -> bool:
        """Whether a message claims the job."""
        in_order = not (job.blocked and self.earlier(job))
        return job.state == "queued" and not job.later and in_order and not self.runs_beside(job)

    def is_current(self, job_id: str, attempt: int, claim_id: UUID | None) -> bool:
        """Return whether a claim is the one that runs."""
        job = self.jobs[job_id]
        return job.state == "running" and (job.attempt, job.claim_id) == (attempt, claim_id)

    def end(self, job: ModelJob, state: str, error_code: str | None) -> set[str]:
        """End the job. Returns the lanes in which another job may be due then."""
        job.state, job.error_code = state, error_code
        lanes = self.unblock_next(job.serial_key)
        place = (job.queue, job.fairness_lane)
        if any(other.visible and (other.queue, other.fairness_lane) == place for other in self.jobs.values()):
            lanes.add(job.fairness_lane)
        self.wake_parent(job, completed=state == "completed")
        return lanes | {self.jobs[job.parent_id].fairness_lane} if job.parent_id else lanes

    def worker(self, name: str) -> ModelWorker:
        """Return a worker, which is perhaps known only by its jobs."""
        return self.workers.get(name) or self.unknown_workers[name]

    def register_unknown(self) -> None:
        """Give a lease to each worker of a running job that is not registered: a failover has lost the row."""
        for job in self.jobs.values():
            if job.state == "running" and job.worker not in self.workers:
                self.unknown_workers.setdefault(job.worker, ModelWorker(0, {}))

    def give_back(self, worker_is_lost: Any) -> list[ModelJob]:
        """Give back the running jobs of lost workers, as crashed."""
        given_back = [job for job in self.jobs.values() if job.state == "running" and worker_is_lost(job.worker)]
        for job in given_back:
            if job.failures:
                job.requeue_later(crashes=1)
            else:
                job.requeue(crashes=1)
        return given_back

    # ── trees ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def may_have_children(self, parent: ModelJob, new_jobs: Sequence[NewJob]) -> bool:
        """Whether each job can be inserted or adopted."""
        held = self.keys_held_above(parent)
        existing = [self.jobs[self.unique[new.unique_key]] for new in new_jobs if new.unique_key in self.unique]
        return not any(new.serial_key in held for new in new_jobs) and all(
            self._may_be_child(parent, job) for job in existing
        )

    def _may_be_child(self, parent: ModelJob, job: ModelJob) -> bool:
        """Whether a job is, or may become, a child: not if its tree would wait for one above, or has a budget."""
        held = self.keys_held_above(parent)
        return (
            job.parent_id in (None, parent.id)
            and job.account_id == parent.account_id
            and job.id not in self.ancestors(parent)
            and not any(
                each.unfinished and (each.serial_key in held or each.id in self.budgets) for each in self.subtree(job)
            )
        )

    def insertable(self, new_jobs: Sequence[NewJob]) -> list[str]:
        """Return the ids of those whose unique key is free."""
        keys = [new.unique_key for new in new_jobs]
        return [
            new.id
            for place, new in enumerate(new_jobs)
            if new.unique_key is None or (new.unique_key not in self.unique and keys.index(new.unique_key) == place)
        ]

    def wait(self, parent: ModelJob, new_jobs: Sequence[NewJob], join_rule: str, timeout: bool, deadline: Time) -> None:
        """Let a job wait for children, which inherit its deadline. Adopted ones bring their descendants."""
        for new in new_jobs:
            own = "future" if new.deadline_at and deadline == "none" else deadline
            if self.insert(new, parent, deadline=own):
                self.draw(self.jobs[new.id], new)
            elif new.unique_key:
                self._adopt(parent, self.jobs[self.unique[new.unique_key]])
        parent.pending = sum(child.unfinished for child in self.children(parent))
        parent.requeue("waiting" if parent.pending else "queued")
        parent.join_rule, parent.wait = join_rule, "future" if timeout else "none"

    def _adopt(self, parent: ModelJob, adopted: ModelJob) -> None:
        adopted.parent_id = parent.id
        moved = adopted.depth - parent.depth - 1
        for job in self.subtree(adopted):
            job.root_id, job.depth = parent.root_id or parent.id, job.depth - moved

    def wake_parent(self, job: ModelJob, *, completed: bool) -> None:
        """Count a child as ended."""
        parent = self.jobs.get(job.parent_id or "")
        if parent is None or parent.state != "waiting":
            return
        parent.pending -= 1
        if parent.pending <= 0 or parent.join_rule == ("any" if completed else "fail_fast"):
            parent.requeue()

    def cancel(self, root: ModelJob) -> tuple[set[str], set[str]]:
        """Flag the subtree, children before their parents. Returns the ids of those that ended, and that run."""
        flagged = [job for job in self.subtree(root) if job.unfinished and not job.cancel_requested]
        flagged.sort(key=lambda job: job.id, reverse=True)
        for job in flagged:
            job.cancel_requested = True
            if job.state in ("scheduled", "queued") and job.attempt == 0:
                job.state = "cancelled"
            elif job.state != "running":
                job.state, job.published, job.later = "queued", False, False
        ended = [job for job in flagged if job.state == "cancelled"]
        for job in ended:
            self.settle(job, used=0)
            self.wake_parent(job, completed=False)
            self.unblock_next(job.serial_key)
        return {job.id for job in ended}, {job.id for job in flagged if job.state == "running"}

    # ── ended jobs ───────────────────────────────────────────────────────────────────────────────────────────────────

    def replay(self, job: ModelJob) -> bool:
        """Queue a job again that is dead, or failed for an unknown effect, behind the others of its serial key."""
        unknown = (job.state, job.error_code) == ("failed", "effect_unknown")
        if job.parent_id is not None or not (job.state == "dead" or unknown):
            return False
        job.blocked = bool(self.of_key(job.serial_key))
        job.requeue()
        job.failures, job.crashes, job.error_code = 0, 0, None
        job.cancel_requested, job.deadline, job.sequence = False, "none", self.next_number()
        return True

    def discard(self, job: ModelJob) -> bool:
        """Mark a dead job as failed."""
        if job.state != "dead":
            return False
        job.state = "failed"
        return True

    def move(self) -> list[str]:
        """Move the ended trees to a table of their own. Returns the ids of the jobs."""
        roots = [job for job in self.jobs.values() if job.parent_id is None and job.state in MOVABLE]
        ids = [job.id for root in roots if self._is_movable(root) for job in self.subtree(root)]
        self.moved.update({job_id: self.jobs.pop(job_id) for job_id in ids})
        self.unique = {key: job_id for key, job_id in self.unique.items() if job_id not in ids}
        for job_id in ids:
            self.budgets.pop(job_id, None)
        return ids

    def _is_movable(self, root: ModelJob) -> bool:
        """Whether all jobs of a tree have ended for good, and none has an effect that is to be resolved."""
        return all(
            job.state in MOVABLE
            and job.error_code != "effect_unknown"
            and self.effects.get(job.id) not in ("intent", "unknown")
            for job in self.subtree(root)
        )

    # ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def draw(self, job: ModelJob, new: NewJob) -> None:
        """Draw what a new job may use, if its tree has a budget."""
        if new.draw and (budget := self.budgets.get(job.root_id or "")):
            job.drawn, job.drawn_from = new.draw.tokens, job.root_id
            budget.used += job.drawn

    def settle(self, job: ModelJob, *, used: int) -> None:
        """Give back what the job has drawn but for what it has used, which may be more."""
        if (budget := self.budgets.get(job.drawn_from or "")) and job.drawn_from:
            budget.used += used - job.drawn
            budget.overdrawn += max(used - job.drawn, 0)
        job.drawn, job.drawn_from = 0, None

    def may_draw(self, root_id: str, tokens: int, depth: int) -> bool:
        """Whether a tree's budget allows jobs at a depth to draw tokens together."""
        budget = self.budgets.get(root_id)
        if budget is None:
            return True
        late = self.jobs[root_id].deadline == "passed"
        within_limit = not tokens or budget.used + tokens <= budget.limit
        return not late and within_limit and depth <= budget.most_depth

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def promote(self) -> int:
        """Queue what has become due. Returns how many."""
        promoted = [job for job in self.jobs.values() if job.state == "scheduled" and not job.later]
        for job in promoted:
            job.state, job.published = "queued", False
        late = [job for job in self.jobs.values() if self._is_late(job)]
        for job in late:
            job.state, job.published, job.later, job.wait = "queued", False, False, "none"
        return len(promoted) + len(late)

    def _is_late(self, job: ModelJob) -> bool:
        waits_too_long = job.state == "waiting" and job.wait == "passed"
        return waits_too_long or (job.state in ("scheduled", "waiting") and job.deadline == "passed")

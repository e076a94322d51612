"""A model of the job protocol in plain Python: what each transition does to the rows.

Times are three values instead of moments: none, in the future, and passed. `test_protocol_stateful.py` compares the
model with Postgres.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import ENDED, Job, NewJob
from models.jobs.outbox import SMALLEST_WINDOW, SUSPECT_CRASHES, DueJob, shard_of

Time = Literal["none", "future", "passed"]

#: Lanes of a queue that a pass visits, and jobs in flight beyond which it leaves a queue out: small ones for the model.
LANES = 2
DEPTH = 2
SMALLEST_DEPTH = 5


@dataclass
class ModelJob:
    """A row of `jobs`. `age` is the seconds since its publication, `sequence` its place in the order of inserts."""

    id: str
    account_id: str
    kind: str
    sequence: int
    serial_key: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    depth: int = 0
    lane: str | None = None
    coalesce: bool = False
    state: str = "queued"
    later: bool = False  # it is due in the future
    blocked: bool = False
    deadline: Time = "none"
    attempt: int = 0
    claim_id: UUID | None = None
    failures: int = 0
    crashes: int = 0
    published: bool = False
    sends: int = 0
    age: float = 0
    cancel_requested: bool = False
    message_id: str | None = None
    worker: str | None = None
    pending: int = 0
    join_rule: str = "all"
    wait: Time = "none"
    endings: int = 0
    drawn: int = 0  # tokens of the budget of the tree `drawn_from`
    drawn_from: str | None = None

    @property
    def queue(self) -> str:
        return CATALOGUE[self.kind].queue

    @property
    def fairness_lane(self) -> str:
        return self.lane or self.account_id

    @property
    def order(self) -> tuple[int, str]:
        return (self.sequence, self.id)

    @property
    def unfinished(self) -> bool:
        return self.state not in ENDED

    @property
    def in_flight(self) -> bool:
        return self.state == "running" or (self.state == "queued" and self.published)

    @property
    def visible(self) -> bool:
        """Whether it is in the relay's index."""
        return self.state == "queued" and not self.published and not self.blocked

    @property
    def suspect(self) -> bool:
        return self.crashes >= SUSPECT_CRASHES

    @property
    def lost(self) -> bool:
        """Whether its message is sent again."""
        limit = 30 * 2 ** min(max(self.sends - 1, 0), 7)
        return self.state == "queued" and self.published and self.age > limit

    def requeue(self, state: str = "queued", *, failures: int = 0, crashes: int = 0) -> None:
        """Put the job back after an attempt."""
        self.state, self.published, self.message_id, self.worker = state, False, None, None
        self.later = state == "scheduled"
        self.failures += failures + crashes
        self.crashes += crashes

    def requeue_later(self, *, failures: int = 0, crashes: int = 0) -> None:
        """Put the job back after a failure, to run after a delay, which a cancelled job does not wait for."""
        self.requeue("queued" if self.cancel_requested else "scheduled", failures=failures, crashes=crashes)


@dataclass
class ModelWorker:
    """A row of `workers`."""

    pid: int
    threads: Mapping[str, int]
    silent: bool = False


@dataclass
class Budget:
    """The tokens of a tree."""

    limit: int
    most_depth: int
    used: int = 0


@dataclass
class Model:
    """All rows, and the transitions."""

    jobs: dict[str, ModelJob] = field(default_factory=dict)
    unique: dict[str, str] = field(default_factory=dict)
    workers: dict[str, ModelWorker] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    mixed_keys: set[str] = field(default_factory=set)  # serial keys that the previous version has used
    count: int = 0

    # ── insert ───────────────────────────────────────────────────────────────────────────────────────────────────

    def insert(self, new: NewJob, parent: Job | None = None, *, later: bool = False, deadline: Time = "none") -> bool:
        """Return whether the job was inserted: a unique key is never free again."""
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

    def of_key(self, serial_key: str | None) -> list[ModelJob]:
        """Return the unfinished jobs of a serial key, in order."""
        jobs = [job for job in self.jobs.values() if serial_key and job.serial_key == serial_key and job.unfinished]
        return sorted(jobs, key=lambda job: job.order)

    def earlier(self, job: ModelJob) -> list[ModelJob]:
        return [other for other in self.of_key(job.serial_key) if other.order < job.order]

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

    def next_number(self) -> int:
        self.count += 1
        return self.count

    # ── relay ────────────────────────────────────────────────────────────────────────────────────────────────────

    def windows(self) -> dict[str, int]:
        """Return the windows of the queues of all kinds."""
        threads: dict[str, int] = {}
        for worker in self.workers.values():
            if not worker.silent:
                for queue, number in worker.threads.items():
                    threads[queue] = threads.get(queue, 0) + number
        return {kind.queue: threads.get(kind.queue, SMALLEST_WINDOW) for kind in CATALOGUE.values()}

    def due_of_lanes(self, lanes: Collection[str], run_at: Mapping[str, Any]) -> list[str]:
        """Return the ids of the jobs that a relay publishes after a nudge, in order."""
        queues = set(self.windows())
        return self._due([(queue, lane) for queue in queues for lane in lanes], run_at)

    def due_of_shard(self, shard: int, after: dict[str, str], run_at: Mapping[str, Any]) -> list[str]:
        """Return the ids of the jobs that the sweeper's relay publishes, in order, and move its place."""
        visited = {
            queue: self._lanes(queue, shard, after.get(queue, ""))
            for queue, window in self.windows().items()
            if self._in_flight(queue) < max(SMALLEST_DEPTH, DEPTH * window)
        }
        after.clear()
        after.update({queue: lanes[-1] for queue, lanes in visited.items() if len(lanes) == LANES})
        return self._due([(queue, lane) for queue, lanes in visited.items() for lane in lanes], run_at)

    def _lanes(self, queue: str, shard: int, after: str) -> list[str]:
        lanes = {job.fairness_lane for job in self.jobs.values() if job.queue == queue and job.visible}
        return sorted(lane for lane in lanes if shard_of(lane) == shard and lane > after)[:LANES]

    def _in_flight(self, queue: str, lane: str | None = None) -> int:
        return sum(
            job.in_flight and job.queue == queue and lane in (None, job.fairness_lane) for job in self.jobs.values()
        )

    def _due(self, places: Sequence[tuple[str, str]], run_at: Mapping[str, Any]) -> list[str]:
        jobs = [job for queue, lane in places for job in self._due_of_lane(queue, lane, run_at)]
        jobs.sort(key=lambda job: (CATALOGUE[job.kind].priority, run_at[job.id], job.id))
        published: list[str] = []
        busy = {job.queue for job in self.jobs.values() if job.suspect and job.in_flight}
        for job in jobs:
            if job.suspect and job.queue in busy:
                continue
            if job.suspect:
                busy.add(job.queue)
            published.append(job.id)
        return published

    def _due_of_lane(self, queue: str, lane: str, run_at: Mapping[str, Any]) -> list[ModelJob]:
        due = [
            job for job in self.jobs.values() if (job.queue, job.fairness_lane) == (queue, lane) and self.is_due(job)
        ]
        due.sort(key=lambda job: (CATALOGUE[job.kind].priority, run_at[job.id], job.sequence or math.inf, job.id))
        return due[: max(0, self.windows()[queue] - self._in_flight(queue, lane))]

    def is_due(self, job: ModelJob) -> bool:
        """Whether the job may be published if its lane's window allows."""
        suspects = [other for other in self.jobs.values() if other is not job and other.suspect and other.in_flight]
        return (
            job.visible
            and not job.later
            and not (job.suspect and any(other.queue == job.queue for other in suspects))
            and not self.earlier(job)
            and not self._runs_beside(job)
        )

    def mark(self, sent: Sequence[DueJob]) -> None:
        """Mark what was sent, unless its state has changed since."""
        for due in sent:
            job = self.jobs[due.id]
            if job.state == "queued" and not job.published and job.attempt == due.attempt:
                job.published, job.sends, job.age = True, job.sends + 1, 0

    # ── claim and end ────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, job_id: str, message_id: str, worker: str, *, unsure: bool = False) -> ModelJob | None:
        """Return the claimed job, or None."""
        job = self.jobs[job_id]
        if not self.is_claimable(job) and not (
            unsure and job.state == "running" and (job.message_id, job.worker) == (message_id, worker)
        ):
            if job.state == "queued" and (job.blocked or (self._runs_beside(job) and not job.later)):
                job.published = False
            return None
        assert not (job.cancel_requested and job.attempt == 0), "a cancelled job without an attempt must not run"
        job.state, job.published, job.sends, job.attempt = "running", True, 0, job.attempt + 1
        job.message_id, job.worker, job.blocked = message_id, worker, False
        return job

    def is_claimable(self, job: ModelJob) -> bool:
        in_order = not (job.blocked and self.earlier(job))
        return job.state == "queued" and not job.later and in_order and not self._runs_beside(job)

    def _runs_beside(self, job: ModelJob) -> bool:
        others = [other for other in self.of_key(job.serial_key) if other is not job]
        return any(other.state in ("running", "waiting") for other in others)

    def is_current(self, job_id: str, attempt: int, claim_id: UUID | None) -> bool:
        job = self.jobs[job_id]
        return job.state == "running" and (job.attempt, job.claim_id) == (attempt, claim_id)

    def end(self, job: ModelJob, state: str) -> set[str]:
        """End the job. Returns the lanes in which another job may be due then."""
        job.state = state
        lanes = self.unblock_next(job.serial_key)
        place = (job.queue, job.fairness_lane)
        if any(other.visible and (other.queue, other.fairness_lane) == place for other in self.jobs.values()):
            lanes.add(job.fairness_lane)
        self.wake_parent(job, completed=state == "completed")
        return lanes | {self.jobs[job.parent_id].fairness_lane} if job.parent_id else lanes

    def give_back(self, worker_is_lost: Any) -> list[ModelJob]:
        """Give back the running jobs of lost workers, as crashed."""
        given_back = [job for job in self.jobs.values() if job.state == "running" and worker_is_lost(job.worker)]
        for job in given_back:
            if job.failures:
                job.requeue_later(crashes=1)
            else:
                job.requeue(crashes=1)
        return given_back

    # ── trees ────────────────────────────────────────────────────────────────────────────────────────────────────

    def children(self, job: ModelJob) -> list[ModelJob]:
        return [child for child in self.jobs.values() if child.parent_id == job.id]

    def ancestors(self, job: ModelJob | None) -> list[str]:
        """Return the ids of the job and of those above it."""
        return [job.id, *self.ancestors(self.jobs.get(job.parent_id or ""))] if job else []

    def subtree(self, job: ModelJob) -> list[ModelJob]:
        return [descendant for child in self.children(job) for descendant in self.subtree(child)] + [job]

    def may_have_children(self, parent: ModelJob, new_jobs: Sequence[NewJob]) -> bool:
        """Whether each child whose unique key is taken is, or may become, a child of this parent."""
        existing = [self.jobs[self.unique[new.unique_key]] for new in new_jobs if new.unique_key in self.unique]
        return all(
            job.parent_id == parent.id
            or (job.parent_id is None and job.account_id == parent.account_id and job.id not in self.ancestors(parent))
            for job in existing
        )

    def insertable(self, new_jobs: Sequence[NewJob]) -> list[str]:
        """Return the ids of those whose unique key is free."""
        keys = [new.unique_key for new in new_jobs]
        return [
            new.id
            for place, new in enumerate(new_jobs)
            if new.unique_key is None or (new.unique_key not in self.unique and keys.index(new.unique_key) == place)
        ]

    def wait(
        self, parent: ModelJob, claimed: Job, new_jobs: Sequence[NewJob], join_rule: str, timeout: bool, deadline: Time
    ) -> None:
        """Let a job wait for children. Adopted ones are moved to its tree, with their descendants."""
        claimed = replace(claimed, root_id=parent.root_id, depth=parent.depth)
        for new in new_jobs:
            if self.insert(new, claimed, deadline=deadline):
                self.draw(self.jobs[new.id], new)
            elif new.unique_key:
                self.adopt(parent, self.jobs[self.unique[new.unique_key]])
        parent.pending = sum(child.unfinished for child in self.children(parent))
        parent.requeue("waiting" if parent.pending else "queued")
        parent.join_rule, parent.wait = join_rule, "future" if timeout else "none"

    def adopt(self, parent: ModelJob, adopted: ModelJob) -> None:
        adopted.parent_id = parent.id
        moved = adopted.depth - parent.depth - 1
        for job in self.subtree(adopted):
            job.root_id, job.depth = parent.root_id or parent.id, job.depth - moved

    def wake_parent(self, job: ModelJob, *, completed: bool) -> None:
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

    def replay(self, job: ModelJob) -> bool:
        """Queue a dead job again, behind the others of its serial key."""
        if job.state != "dead" or job.parent_id is not None:
            return False
        job.blocked = bool(self.of_key(job.serial_key))
        job.requeue()
        job.failures = job.crashes = 0
        job.cancel_requested, job.deadline, job.sequence = False, "none", self.next_number()
        return True

    def discard(self, job: ModelJob) -> bool:
        """Mark a dead job as failed."""
        if job.state != "dead":
            return False
        job.state = "failed"
        return True

    # ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────

    def draw(self, job: ModelJob, new: NewJob) -> None:
        if new.draw and (budget := self.budgets.get(job.root_id or "")):
            job.drawn, job.drawn_from = new.draw.tokens, job.root_id
            budget.used += job.drawn

    def settle(self, job: ModelJob, *, used: int) -> None:
        """Give back what the job has drawn but for what it has used."""
        if job.drawn:
            self.budgets[job.drawn_from or ""].used -= job.drawn - used
        job.drawn = 0

    def may_draw(self, root_id: str, tokens: int, depth: int) -> bool:
        budget = self.budgets.get(root_id)
        if budget is None:
            return True
        late = self.jobs[root_id].deadline == "passed"
        within_limit = not tokens or budget.used + tokens <= budget.limit
        return not late and within_limit and depth <= budget.most_depth

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

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

    def unpublish(self, which: Any) -> int:
        """Publish unclaimed jobs again. Returns how many."""
        jobs = [job for job in self.jobs.values() if job.state == "queued" and job.published and which(job)]
        for job in jobs:
            job.published = False
        return len(jobs)

"""The rows of the model of the job protocol.

Times are three values instead of moments: none, in the future, and passed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import ENDED
from models.jobs.outbox import SUSPECT_CRASHES

Time = Literal["none", "future", "passed"]


@dataclass
class ModelJob:
    """A row of `jobs`.

    sequence    its place in the order of inserts
    age         seconds since its publication
    drawn       tokens of a budget that it has drawn and not given back
    drawn_from  the root of the tree that had the budget, and that the job may have left since
    """

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
    error_code: str | None = None
    drawn: int = 0
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
    """The tokens of a tree. `overdrawn` are those that jobs used without having drawn them."""

    limit: int
    most_depth: int
    used: int = 0
    overdrawn: int = 0


@dataclass
class Rows:
    """All rows, and queries of them.

    moved            ended jobs that are in a table of their own
    unique           the job of each unique key
    unknown_workers  workers that the sweeper has registered for the sake of their jobs
    effects          the state of each job's call to another system
    mixed_keys       serial keys that the previous version has used
    """

    jobs: dict[str, ModelJob] = field(default_factory=dict)
    moved: dict[str, ModelJob] = field(default_factory=dict)
    unique: dict[str, str] = field(default_factory=dict)
    workers: dict[str, ModelWorker] = field(default_factory=dict)
    unknown_workers: dict[str, ModelWorker] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    effects: dict[str, str] = field(default_factory=dict)
    mixed_keys: set[str] = field(default_factory=set)
    count: int = 0

    def next_number(self) -> int:
        """Return a number that increases."""
        self.count += 1
        return self.count

    # ── serial keys ──────────────────────────────────────────────────────────────────────────────────────────────

    def of_key(self, serial_key: str | None) -> list[ModelJob]:
        """Return the unfinished jobs of a serial key, in order."""
        jobs = [job for job in self.jobs.values() if serial_key and job.serial_key == serial_key and job.unfinished]
        return sorted(jobs, key=lambda job: job.order)

    def earlier(self, job: ModelJob) -> list[ModelJob]:
        """Return the unfinished jobs before this one in its serial key."""
        return [other for other in self.of_key(job.serial_key) if other.order < job.order]

    def runs_beside(self, job: ModelJob) -> bool:
        """Whether another job of its serial key runs or waits."""
        others = [other for other in self.of_key(job.serial_key) if other is not job]
        return any(other.state in ("running", "waiting") for other in others)

    # ── trees ────────────────────────────────────────────────────────────────────────────────────────────────────

    def children(self, job: ModelJob) -> list[ModelJob]:
        """Return the children of a job."""
        return [child for child in self.jobs.values() if child.parent_id == job.id]

    def ancestors(self, job: ModelJob | None) -> list[str]:
        """Return the ids of the job and of those above it."""
        return [job.id, *self.ancestors(self.jobs.get(job.parent_id or ""))] if job else []

    def subtree(self, job: ModelJob) -> list[ModelJob]:
        """Return the job and all below it, children before their parents."""
        return [descendant for child in self.children(job) for descendant in self.subtree(child)] + [job]

    def keys_held_above(self, job: ModelJob) -> set[str | None]:
        """Return the serial keys of the job and of those above it, as far as they have not ended."""
        above = [self.jobs[job_id] for job_id in self.ancestors(job)]
        return {each.serial_key for each in above if each.serial_key and each.unfinished}

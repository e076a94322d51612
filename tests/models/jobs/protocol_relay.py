"""The relay in the model of the job protocol: what it publishes, and when it publishes again."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from models.jobs.catalogue import CATALOGUE, SHARED_QUEUES
from models.jobs.outbox import DueJob, shard_of
from models.jobs.windows import SMALLEST_WINDOW
from tests.models.jobs.protocol_rows import ModelJob, Rows

#: Lanes of a queue that a pass visits, and jobs in flight beyond which it leaves a queue out: small ones for the model.
LANES = 2
DEPTH = 2
SMALLEST_DEPTH = 5


class Relay(Rows):
    """What the relay and the sweeper publish."""

    def windows(self) -> dict[str, int]:
        """Return the windows of the queues of all kinds."""
        threads: dict[str, int] = {}
        for worker in self.workers.values():
            if not worker.silent:
                for queue, number in worker.threads.items():
                    threads[queue] = threads.get(queue, 0) + number
        return {
            kind.queue: max(1, threads[kind.queue] - (kind.queue in SHARED_QUEUES))
            if kind.queue in threads
            else SMALLEST_WINDOW
            for kind in CATALOGUE.values()
        }

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
            and not self.runs_beside(job)
        )

    def mark(self, sent: Sequence[DueJob]) -> None:
        """Mark what was sent, unless its state has changed since."""
        for due in sent:
            job = self.jobs[due.id]
            if job.state == "queued" and not job.published and job.attempt == due.attempt:
                job.published, job.sends, job.age = True, job.sends + 1, 0

    def unpublish(self, which: Any) -> int:
        """Publish unclaimed jobs again. Returns how many."""
        jobs = [job for job in self.jobs.values() if job.state == "queued" and job.published and which(job)]
        for job in jobs:
            job.published = False
        return len(jobs)

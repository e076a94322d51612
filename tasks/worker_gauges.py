"""Gauges of a worker process: the slots of its engines, and the memory of its journals."""

from collections import Counter
from collections.abc import Iterator

from models.jobs.catalogue import BATCH_SUFFIX
from models.platform import metrics
from models.platform.exposition import Exposition, Values
from models.serving.queues import endpoint_of
from tasks.job_runner import JobRunner


def install(exposition: Exposition, runner: JobRunner) -> None:
    """Register the gauges."""
    exposition.read(metrics.ENGINE_SLOTS, lambda: engine_slots(runner))
    exposition.read(metrics.JOURNAL_MEMORY, lambda: journal_memory(runner))


def engine_slots(runner: JobRunner) -> Values:
    """Return the busy and free slots by model, and of an endpoint, whose models share them, by its name."""
    running = Counter(attempt.job.queue.removesuffix(BATCH_SUFFIX) for attempt in runner.running_attempts())
    return {
        (name, state): float(count)
        for queue, name, slots in _engines(runner)
        for busy in [min(slots, running[queue])]
        for state, count in (("busy", busy), ("free", slots - busy))
    }


def _engines(runner: JobRunner) -> Iterator[tuple[str, str, int]]:
    """Yield the queue, the name and the slots of each engine."""
    served = {model.queue: model for model in runner.served}
    for queue, model in served.items():
        yield queue, endpoint_of(queue) or model.description.name, model.slots


def journal_memory(runner: JobRunner) -> Values:
    """Return the bytes of events that the running attempts keep."""
    return {(): float(sum(attempt.journal.kept_bytes for attempt in runner.running_attempts()))}

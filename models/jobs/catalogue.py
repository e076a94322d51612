"""The kinds of jobs, and the pools that run them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobKind:
    """A kind of job.

    queue        the queue that its jobs are published to
    priority     within a pool, lower runs first
    time_limit   seconds of one attempt
    attempts     failures after which a job is dead; the death of its worker counts as one
    backoff      seconds before the second attempt, doubled for each one after it
    cancellable  whether its account may cancel it: a payment that is under way ends at its gateway
    """

    queue: str
    priority: int = 0
    time_limit: float = 600.0
    attempts: int = 5
    backoff: float = 1.0
    cancellable: bool = True


#: Pool → the queues that its workers serve, each with threads of its own. Background work has a queue with the suffix
#: `_batch`, so that interactive work does not wait for it. The pool `upstream` has a queue for each endpoint.
POOLS: Mapping[str, Sequence[str]] = {
    "inference": ("inference", "inference_batch"),
    "upstream": (),
    "memory": ("memory", "memory_batch"),
    "recall": ("recall",),
    "tools": ("tools",),
    "billing": ("billing",),
    "reporting": ("reporting", "reporting_batch"),
    "delivery": ("delivery", "webhooks", "webhooks_batch"),
    "maintenance": ("maintenance",),
}

#: Queues of which a lane never uses all threads: one is left to the others, since a job may run for minutes. All slots
#: of an engine are for an account that is alone, and a turn is short.
SHARED_QUEUES = frozenset(queue for pool, queues in POOLS.items() if pool != "inference" for queue in queues)

#: What the names of the queues of background work end with.
BATCH_SUFFIX = "_batch"


def batch_queue(queue: str) -> str:
    """Return the queue of background work beside a queue."""
    return queue if is_batch(queue) else queue + BATCH_SUFFIX


def is_batch(queue: str) -> bool:
    """Return whether a queue is one of background work."""
    return queue.endswith(BATCH_SUFFIX)


#: What the names of the queues of messages that pass others end with. A job is never in one: its message is, and the
#: threads of that queue are a share of those of the job's. So windows, forecasts and moves know one queue.
PRIORITY_SUFFIX = "_priority"


def priority_queue(queue: str) -> str:
    """Return the queue of the messages that pass others of a queue."""
    return queue + PRIORITY_SUFFIX


def queue_of_message(name: str) -> str:
    """Return the queue of the job whose message was in a queue."""
    return name.removesuffix(PRIORITY_SUFFIX)


def priority_share(threads: int) -> int:
    """Return how many turns of the tier `priority` may pass others at once: half of the slots, so that all go on."""
    return max(1, threads // 2)


#: Pools whose queues are not only those in POOLS: each of their models has one, which begins so.
PREFIXES: Mapping[str, str] = {"inference.": "inference", "upstream.": "upstream"}


def pool_of(queue: str) -> str | None:
    """Return the pool that serves a queue, also one of a model; None for a queue of another version."""
    if queue.endswith(PRIORITY_SUFFIX):
        return None
    by_prefix = (pool for prefix, pool in PREFIXES.items() if queue.startswith(prefix))
    return next((pool for pool, queues in POOLS.items() if queue in queues), None) or next(by_prefix, None)


CATALOGUE: Mapping[str, JobKind] = {
    "turn.run": JobKind(queue="inference", time_limit=900, attempts=5, backoff=0.5),
    "tokens.count": JobKind(queue="inference", priority=-1, time_limit=60, attempts=2, backoff=0.5),
    "context.compact": JobKind(queue="inference", priority=-1, time_limit=60, attempts=2, backoff=0.5),
    "tool.call": JobKind(queue="tools", time_limit=300, attempts=5, backoff=0.5),
    "tool.list": JobKind(queue="tools", priority=-1, time_limit=60, attempts=3, backoff=0.5),
    "approval.wait": JobKind(queue="tools", priority=-2, time_limit=60, attempts=10, backoff=1),
    # 40 attempts take about five hours: a mail server may be down that long.
    "email.send": JobKind(queue="delivery", time_limit=120, attempts=40, backoff=10),
    # These attempts are for errors of this installation. Failures of a receiver are in the row of the delivery.
    "webhook.deliver": JobKind(queue="webhooks", time_limit=60, attempts=10, backoff=1, cancellable=False),
    "webhook.replay": JobKind(queue="delivery", priority=1, time_limit=300, attempts=10, backoff=5),
    # 40 attempts take about five hours: a payment gateway may be down that long.
    "payment.charge": JobKind(queue="billing", priority=-1, time_limit=120, attempts=40, backoff=2, cancellable=False),
    "payment.refund": JobKind(queue="billing", time_limit=120, attempts=40, backoff=2, cancellable=False),
    "payment.check": JobKind(queue="billing", priority=1, time_limit=120, attempts=40, backoff=10, cancellable=False),
    "refund.check": JobKind(queue="billing", priority=1, time_limit=120, attempts=40, backoff=10, cancellable=False),
    "gateway.event": JobKind(queue="billing", time_limit=120, attempts=40, backoff=2, cancellable=False),
    # 300 attempts take about two days, for as long as the gateway may be unavailable.
    "customer.delete": JobKind(queue="billing", priority=1, time_limit=120, attempts=300, backoff=60),
    # A draft of a million records takes 200 transactions.
    "invoice.draft": JobKind(queue="billing", time_limit=1500, attempts=40, backoff=2, cancellable=False),
    "subscriptions.due": JobKind(queue="billing", time_limit=900, attempts=5, backoff=10),
    "subscription.renew": JobKind(queue="billing", time_limit=300, attempts=40, backoff=2, cancellable=False),
    "subscription.notify": JobKind(queue="billing", priority=1, time_limit=60, attempts=10, backoff=10),
    "invoice.collect": JobKind(queue="billing", time_limit=120, attempts=40, backoff=2, cancellable=False),
    "usage.invoice": JobKind(queue="billing", priority=1, time_limit=900, attempts=5, backoff=60),
    "credits.expire": JobKind(queue="billing", priority=1, time_limit=900, attempts=5, backoff=60),
    "spending.notify": JobKind(queue="billing", priority=1, time_limit=300, attempts=3, backoff=10),
    "credits.top_up": JobKind(queue="billing", priority=1, time_limit=300, attempts=3, backoff=10),
    "rollups.update": JobKind(queue="reporting", priority=1, time_limit=900, attempts=5, backoff=10),
    "account.export": JobKind(queue="reporting", time_limit=3600, attempts=3, backoff=10),
    # A batch is looked at about once a second; each look is an attempt. 40 failures without progress between them are
    # hours without an object store.
    "batch.run": JobKind(queue="reporting_batch", time_limit=3600, attempts=40, backoff=2, cancellable=False),
    "report.build": JobKind(queue="reporting", time_limit=900, attempts=3, backoff=5),
    "data.erase": JobKind(queue="maintenance", time_limit=3600, attempts=20, backoff=10),
    "embedding.create": JobKind(queue="memory", time_limit=600, attempts=3, backoff=1),
    "memory.search": JobKind(queue="recall", time_limit=30, attempts=2, backoff=0.2),
    "memory.create": JobKind(queue="memory", priority=-1, time_limit=600, attempts=5, backoff=1),
    "memory.change": JobKind(queue="memory", priority=-1, time_limit=120, attempts=5, backoff=1),
    "memory.remember": JobKind(queue="memory", time_limit=600, attempts=10, backoff=1),
    "memory.extract": JobKind(queue="memory_batch", priority=-1, time_limit=300, attempts=5, backoff=5),
    "memory.fact": JobKind(queue="inference_batch", priority=5, time_limit=600, attempts=3, backoff=5),
    "memory.forget": JobKind(queue="memory", time_limit=900, attempts=10, backoff=1),
    "memory.import": JobKind(queue="memory_batch", time_limit=900, attempts=10, backoff=1),
    "memory.reindex": JobKind(queue="memory_batch", priority=3, time_limit=900, attempts=10, backoff=30),
    # The index is built while reads and writes continue. Until then searches compare all vectors.
    "memory.index": JobKind(queue="maintenance", priority=1, time_limit=1500, attempts=5, backoff=60),
    # Each call of the language model is a job of its own.
    "meditation.run": JobKind(queue="memory_batch", priority=5, time_limit=1800, attempts=5, backoff=5),
    "memory.insight": JobKind(queue="inference_batch", priority=5, time_limit=600, attempts=3, backoff=5),
    "meditation.nightly": JobKind(queue="maintenance", time_limit=600, attempts=5, backoff=30),
    "password.forgotten": JobKind(queue="delivery", time_limit=30, attempts=10, backoff=1),
    "maintenance.prune": JobKind(queue="maintenance", time_limit=300, attempts=3, backoff=60),
    "maintenance.sweep_objects": JobKind(queue="maintenance", priority=1, time_limit=1500, attempts=5, backoff=60),
    "maintenance.archive_jobs": JobKind(queue="maintenance", priority=1, time_limit=1500, attempts=5, backoff=60),
}

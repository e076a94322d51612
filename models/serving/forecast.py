"""Predict how long turns wait for a thread of their queue.

A queue with S threads, whose attempts take m seconds on average, ends one attempt every m / S seconds. A turn waits for
as many of these as it takes until a thread is free for it:

    wait = max(0, running + ahead + 1 - S) * m / S

`ahead` are the turns that begin before it. Windows and lanes decide them (`models.jobs.outbox`): published turns, and
of each lane that waits as many as the turn's own lane has before it.

    ahead = min(Q, P + own * K)

Q are all turns that wait, P those published and not claimed, K the waiting lanes, and `own` the unpublished turns of
the turn's lane before it. Each class, interactive and batch, has a queue of its own and so a forecast of its own.
"""

from models.serving.state import QueueState


def turns_ahead(queue: QueueState, own: int = 0) -> int:
    """Return how many waiting turns begin before one whose lane has `own` unpublished turns before it."""
    return min(queue.waiting, queue.published + own * max(1, queue.lanes))


def wait_behind(queue: QueueState, ahead: int) -> float | None:
    """Return the seconds until a turn with so many waiting turns before it begins.

    None: nobody knows, since no worker serves the queue, or none has measured an attempt and there is no free thread.
    """
    if queue.threads <= 0:
        return None
    busy = max(0, queue.running + ahead + 1 - queue.threads)
    if busy == 0:
        return 0.0
    return None if queue.mean_seconds is None else busy * queue.mean_seconds / queue.threads


def predicted_wait(queue: QueueState, own: int = 0) -> float | None:
    """Return the seconds until a turn that arrives now begins; None: unknown.

    own  the unpublished turns of its lane; 0 for an account that has none
    """
    return wait_behind(queue, turns_ahead(queue, own))


def wait_at_end(queue: QueueState) -> float | None:
    """Return the seconds until all turns that wait now have begun: the longest wait of one that arrives now."""
    return wait_behind(queue, queue.waiting)

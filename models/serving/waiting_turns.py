"""Find out what turns wait for: their place in the queue, the predicted wait and the reason."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models.platform.database import Connection, fetch_all
from models.serving.breakers import Breaker, list_breakers
from models.serving.forecast import turns_ahead, wait_behind
from models.serving.queues import endpoint_of, is_endpoint_queue
from models.serving.state import MAX_COUNTED, ServingState

#: Why a turn waits. `conversation_busy`: for an earlier turn of its conversation. `retrying`: its last attempt could
#: not begin, or failed. `endpoint_saturated`: the endpoint has asked for a pause.
WaitReason = Literal[
    "busy", "no_worker", "conversation_busy", "breaker_open", "endpoint_saturated", "retrying"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class WaitingTurn:
    """A turn that no worker runs.

    position        its place in the queue, from 1 on; None: not in it yet
    predicted_wait  seconds until it begins; None: unknown
    """

    reason: WaitReason
    position: int | None = None
    predicted_wait: float | None = None

    @property
    def begins_at_once(self) -> bool:
        """Whether a worker is free for it."""
        return self.reason == "busy" and self.predicted_wait == 0


# Of the jobs, the turns that wait, with the number of turns before them: of a published turn the published ones of its
# queue, of another one the unpublished ones of its lane. Each lane and queue is read once, whatever the number of its
# turns. `state || ''`: see `models.jobs.outbox`.
WAITING = """
WITH asked AS MATERIALIZED (
    SELECT id, queue, state, blocked, published_at, coalesce(lane, account_id) AS turn_lane,
           greatest(0, extract(epoch FROM run_at - now()))::float AS due_in
    FROM jobs
    WHERE id = ANY(%(ids)s) AND kind = 'turn.run' AND (state = 'queued' OR state = 'scheduled' AND attempt > 0)
), lanes AS (
    SELECT DISTINCT queue AS lane_queue, turn_lane FROM asked
    WHERE state = 'queued' AND published_at IS NULL AND NOT blocked
), of_lanes AS (
    SELECT ranked.id, before FROM lanes CROSS JOIN LATERAL (
        SELECT first.id, row_number() OVER () - 1 AS before FROM (
            SELECT id FROM jobs
            WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked AND queue = lane_queue
              AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = ascii(right(turn_lane, 1)) %% 4
              AND coalesce(lane, account_id) = turn_lane
            ORDER BY priority, run_at, sequence, id LIMIT %(most)s) AS first) AS ranked
), of_queues AS (
    SELECT id, row_number() OVER (PARTITION BY queue ORDER BY published_at, id) - 1 AS before FROM jobs
    WHERE state = 'queued' AND published_at IS NOT NULL
      AND queue IN (SELECT queue FROM asked WHERE published_at IS NOT NULL)
)
SELECT asked.id, queue, state, blocked, published_at IS NOT NULL AS published, due_in,
       coalesce(of_lanes.before, of_queues.before, 0)::int AS before
FROM asked LEFT JOIN of_lanes ON of_lanes.id = asked.id LEFT JOIN of_queues ON of_queues.id = asked.id
"""


def read_waiting(connection: Connection, state: ServingState, job_ids: Collection[str]) -> dict[str, WaitingTurn]:
    """Return those of the jobs that are turns which wait, by id. One statement, and one more for endpoints."""
    rows = fetch_all(connection, WAITING, {"ids": list(job_ids), "most": MAX_COUNTED})
    breakers = list_breakers(connection) if any(is_endpoint_queue(row["queue"]) for row in rows) else {}
    return {row["id"]: _waiting_turn(row, state, breakers) for row in rows}


def _waiting_turn(row: Mapping[str, Any], state: ServingState, breakers: Mapping[str, Breaker]) -> WaitingTurn:
    if row["blocked"]:
        return WaitingTurn("conversation_busy")
    if row["state"] == "scheduled":
        return WaitingTurn("retrying", predicted_wait=row["due_in"])
    queue = state.queue(row["queue"])
    ahead = row["before"] if row["published"] else turns_ahead(queue, row["before"])
    reason = _endpoint_reason(row["queue"], breakers) or ("busy" if queue.threads else "no_worker")
    return WaitingTurn(reason, ahead + 1, wait_behind(queue, ahead) if reason == "busy" else None)


def _endpoint_reason(queue: str, breakers: Mapping[str, Breaker]) -> WaitReason | None:
    """Return why an endpoint is not asked now; None for a local queue too."""
    if (endpoint := endpoint_of(queue)) is None:
        return None
    breaker = breakers.get(endpoint)
    if breaker is None or breaker.accepts:
        return None
    return "endpoint_saturated" if breaker.state == "closed" else "breaker_open"

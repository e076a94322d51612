"""The turns that wait in the queue of a model, in the order in which they would begin.

Published turns come first. Then each lane has a turn before any lane has two: by their rank in their lane, then by age.
A pass reads at most a page of lanes with the first turns of each, so that its cost depends on the due turns only.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_all, fetch_one
from models.serving.moves import MAY_LEAVE, Target

#: Lanes of a shard and turns of a lane that a pass reads, and turns that it reads in all.
LANES, TURNS_OF_LANE, MOST_TURNS = 32, 32, 512


@dataclass(frozen=True, slots=True)
class QueuedTurn:
    """A turn that waits.

    age         seconds since it was due
    in_queue    seconds since it was published; None: it is not
    since_move  seconds since it was last moved; None: never
    attempts    how often it was begun
    moves       how often it was moved
    may_leave   neither the turn nor its account keeps it in the operator's network
    most_tokens the most that it can be billed for, of prompts and generated; None: unknown
    """

    id: str
    age: float
    in_queue: float | None
    since_move: float | None
    attempts: int
    moves: int
    may_leave: bool
    most_tokens: tuple[int, int] | None = None


ANY_WAITS = """
SELECT EXISTS (SELECT FROM jobs WHERE queue = ANY(%(queues)s) AND state = 'queued' AND kind = 'turn.run') AS waits
"""


def any_waits(connection: Connection, queues: Sequence[str]) -> bool:
    """Return whether a turn waits in one of the queues."""
    row = fetch_one(connection, ANY_WAITS, {"queues": list(queues)})
    return bool(row and row["waits"])


TURN = f"""
    id, kind, run_at, published_at, attempt, arguments,
    coalesce(lane, account_id) AS lane, {MAY_LEAVE} AS may_leave"""

# The index `jobs_due` serves the visit of the lanes and of their turns: see `models.jobs.outbox`.
READ = f"""
WITH RECURSIVE lanes AS (
    SELECT shard, first.lane, 1 AS visited FROM generate_series(0, 3) AS shard CROSS JOIN LATERAL (
        SELECT coalesce(lane, account_id) AS lane FROM jobs
        WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
          AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = shard AND queue = %(queue)s
          AND coalesce(lane, account_id) > coalesce(%(after)s::jsonb ->> shard::text, '')
        ORDER BY coalesce(lane, account_id) LIMIT 1) AS first
    UNION ALL
    SELECT shard, next.lane, visited + 1 FROM lanes CROSS JOIN LATERAL (
        SELECT coalesce(lane, account_id) AS lane FROM jobs
        WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
          AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = shard AND queue = %(queue)s
          AND coalesce(lane, account_id) > lanes.lane
        ORDER BY coalesce(lane, account_id) LIMIT 1) AS next
    WHERE visited < %(lanes)s
), waiting AS (
    (SELECT 0 AS rank, -1 AS shard, 0 AS visited, {TURN} FROM jobs
     WHERE queue = %(queue)s AND state = 'queued' AND published_at IS NOT NULL
     ORDER BY published_at LIMIT %(most)s)
    UNION ALL
    SELECT row_number() OVER (PARTITION BY lanes.lane ORDER BY priority, run_at, sequence, id), lanes.shard,
           lanes.visited, id, kind, run_at, published_at, attempt, arguments, lanes.lane, may_leave
    FROM lanes CROSS JOIN LATERAL (
        SELECT priority, sequence, {TURN} FROM jobs
        WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
          AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = lanes.shard AND queue = %(queue)s
          AND coalesce(lane, account_id) = lanes.lane AND run_at <= now()
        ORDER BY priority, run_at, sequence, id LIMIT %(of_lane)s) AS turn
)
SELECT id, kind, attempt, may_leave, shard, visited, lane,
       extract(epoch FROM now() - run_at)::float AS age,
       extract(epoch FROM now() - published_at)::float AS in_queue,
       extract(epoch FROM now() - (arguments -> 'route' ->> 'at')::timestamptz)::float AS since_move,
       coalesce((arguments -> 'route' ->> 'moves')::int, 0) AS moves,
       (arguments -> 'most_tokens' ->> 0)::bigint AS input_tokens,
       (arguments -> 'most_tokens' ->> 1)::bigint AS output_tokens
FROM waiting ORDER BY rank, coalesce(published_at, run_at), id
"""


def read_queued(
    connection: Connection, queue: str, target: Target, after: MutableMapping[str, str] | None = None
) -> list[QueuedTurn]:
    """Return the turns that wait in a queue, in the order in which they would begin, at most MOST_TURNS.

    `after` is where this pass begins, by shard, and is updated to where the next one does: after the last lane that was
    visited, or at the first one.
    """
    after = {} if after is None else after
    rows = fetch_all(
        connection,
        READ,
        {
            "queue": queue,
            "after": Jsonb(dict(after)),
            "lanes": LANES,
            "of_lane": TURNS_OF_LANE,
            "most": MOST_TURNS,
            "is_local": target.is_local,
            "default": target.default,
        },
    )
    after.clear()
    after.update({str(row["shard"]): row["lane"] for row in rows if row["visited"] == LANES})
    return [_turn(row) for row in rows[:MOST_TURNS]]


def _turn(row: Mapping[str, Any]) -> QueuedTurn:
    most = (row["input_tokens"], row["output_tokens"]) if row["input_tokens"] is not None else None
    return QueuedTurn(
        row["id"], row["age"], row["in_queue"], row["since_move"], row["attempt"], row["moves"],
        row["may_leave"] and row["kind"] == "turn.run", most,
    )  # fmt: skip

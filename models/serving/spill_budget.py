"""The spill budget: how much the endpoint that answers for local models may cost and answer on a day (UTC).

`spill_days` has a row per day and endpoint. A move locks it, so that two routers cannot spend the same money, and draws
the most that the moved turns can cost in the transaction that moves them. The transaction that ends or returns a turn
settles it (`models.jobs.route_costs`). Lock the row before no job: `moves` skips jobs that others have locked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from models.platform.database import Connection, fetch_all, fetch_one


@dataclass(frozen=True, slots=True)
class BudgetRoom:
    """What a day's budget has left. None: no limit.

    money  in the currency of the endpoint's prices
    turns  that may still be moved
    """

    money: Decimal | None = None
    turns: int | None = None


INSERT = """
INSERT INTO spill_days (spill_day, upstream) VALUES ((now() AT TIME ZONE 'UTC')::date, %(endpoint)s)
ON CONFLICT (spill_day, upstream) DO NOTHING
"""

# The turns of the day are those that have ended, and those that wait or run: they end later.
LOCK = """
SELECT spilled_turns, reserved_cost, spent_cost,
       (SELECT coalesce(sum(ended_turns), 0)::bigint FROM turn_counts WHERE turn_day = spill_day) AS ended_turns
FROM spill_days WHERE spill_day = (now() AT TIME ZONE 'UTC')::date AND upstream = %(endpoint)s
FOR NO KEY UPDATE
"""


def lock_room(
    connection: Connection, endpoint: str, *, money: Decimal | None, share: float | None, unfinished: int
) -> BudgetRoom:
    """Return what today's budget has left, and lock it until the transaction ends.

    money       the most that a day may cost
    share       the largest part of the day's turns that may be moved
    unfinished  turns that wait or run, which count as turns of the day
    """
    row = fetch_one(connection, LOCK, {"endpoint": endpoint})
    if row is None:
        connection.execute(INSERT, {"endpoint": endpoint})
        row = fetch_one(connection, LOCK, {"endpoint": endpoint})
    assert row is not None
    return room_of(row, money=money, share=share, unfinished=unfinished)


def room_of(row: Mapping[str, Any], *, money: Decimal | None, share: float | None, unfinished: int) -> BudgetRoom:
    """Return what a day's row leaves of the limits, at least 0."""
    left = None if money is None else max(Decimal(0), money - row["reserved_cost"] - row["spent_cost"])
    turns = None
    if share is not None:
        turns = max(0, int(share * (row["ended_turns"] + unfinished)) - row["spilled_turns"])
    return BudgetRoom(left, turns)


DRAW = """
UPDATE spill_days SET spilled_turns = spilled_turns + %(turns)s, reserved_cost = reserved_cost + %(cost)s
WHERE spill_day = (now() AT TIME ZONE 'UTC')::date AND upstream = %(endpoint)s
"""


def draw(connection: Connection, endpoint: str, *, turns: int, cost: Decimal) -> None:
    """Count moved turns and reserve the most that they can cost. The caller has locked the row by `lock_room`."""
    connection.execute(DRAW, {"endpoint": endpoint, "turns": turns, "cost": cost})


LOCK_RESERVED = "SELECT FROM spill_days WHERE reserved_cost > 0 ORDER BY spill_day, upstream FOR NO KEY UPDATE"

# What unfinished turns have reserved, each on the day of its move. In a statement of its own, which sees all that was
# reserved before the rows were locked.
CORRECT = """
WITH reserved AS (
    SELECT (arguments -> 'route' ->> 'endpoint') AS endpoint,
           ((arguments -> 'route' ->> 'at')::timestamptz AT TIME ZONE 'UTC')::date AS day,
           sum((arguments -> 'route' ->> 'cost')::numeric) AS cost
    FROM jobs
    WHERE queue IN (SELECT 'upstream.' || upstream FROM spill_days WHERE reserved_cost > 0)
      AND state IN ('queued', 'scheduled', 'running', 'waiting') AND arguments -> 'route' ? 'cost'
    GROUP BY 1, 2
)
UPDATE spill_days SET reserved_cost = coalesce(reserved.cost, 0)
FROM spill_days AS before LEFT JOIN reserved ON reserved.day = before.spill_day AND reserved.endpoint = before.upstream
WHERE spill_days.spill_day = before.spill_day AND spill_days.upstream = before.upstream
  AND spill_days.reserved_cost > coalesce(reserved.cost, 0)
RETURNING spill_days.upstream
"""


def correct_reservations(connection: Connection) -> int:
    """Give back what is reserved for turns that have ended. Returns for how many days and endpoints.

    A process of a version without the budget ends or cancels turns without settling them. Call it in a transaction.
    """
    connection.execute(LOCK_RESERVED)
    return len(fetch_all(connection, CORRECT))


# Workers add what they have ended since their last heartbeat.
COUNT = """
INSERT INTO turn_counts AS day (turn_day, turn_queue, ended_turns)
SELECT (now() AT TIME ZONE 'UTC')::date, queue, ended
FROM unnest(%(queues)s::text[], %(ended)s::bigint[]) AS counted (queue, ended) ORDER BY queue
ON CONFLICT (turn_day, turn_queue) DO UPDATE SET ended_turns = day.ended_turns + excluded.ended_turns
"""


def count_ended(connection: Connection, ended: Mapping[str, int]) -> None:
    """Add ended turns, by queue, to those of the day."""
    if ended:
        connection.execute(COUNT, {"queues": list(ended), "ended": list(ended.values())})


@dataclass(frozen=True, slots=True)
class SpillDay:
    """What was moved to an endpoint today. `ended_turns`: of all queues."""

    endpoint: str
    turns: int
    reserved: Decimal
    spent: Decimal
    ended_turns: int


TODAY = """
SELECT upstream, spilled_turns, reserved_cost, spent_cost,
       (SELECT coalesce(sum(ended_turns), 0)::bigint FROM turn_counts WHERE turn_day = spill_day) AS ended_turns
FROM spill_days WHERE spill_day = (now() AT TIME ZONE 'UTC')::date
"""


def list_today(connection: Connection) -> list[SpillDay]:
    """Return what was moved today, by endpoint."""
    return [
        SpillDay(row["upstream"], row["spilled_turns"], row["reserved_cost"], row["spent_cost"], row["ended_turns"])
        for row in fetch_all(connection, TODAY)
    ]


ENDED_TODAY = """
SELECT turn_queue, ended_turns FROM turn_counts WHERE turn_day = (now() AT TIME ZONE 'UTC')::date
"""


def ended_today(connection: Connection) -> dict[str, int]:
    """Return how many turns ended today, by queue, up to the last heartbeat of each worker."""
    return {row["turn_queue"]: row["ended_turns"] for row in fetch_all(connection, ENDED_TODAY)}


#: Days for which the rows are kept.
KEPT_DAYS = 400

PRUNE = (
    "DELETE FROM turn_counts WHERE turn_day < (now() AT TIME ZONE 'UTC')::date - %(days)s",
    "DELETE FROM spill_days WHERE spill_day < (now() AT TIME ZONE 'UTC')::date - %(days)s",
)


def prune(connection: Connection) -> int:
    """Delete the rows of days that ended KEPT_DAYS ago. Returns how many."""
    return sum(connection.execute(statement, {"days": KEPT_DAYS}).rowcount for statement in PRUNE)

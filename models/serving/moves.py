"""Move turns that wait between the queue of a local model and that of an endpoint, one UPDATE each way.

    home ──spill──► endpoint ──return──► home

A moved turn is unpublished, keeps its priority and its place among the due turns of its lane, and has its way in the
argument `route`:

    endpoint, model  that answer; None after a return
    home             the queue that it came from
    reason, at       of its last move
    moves            how often it was moved
    attempt          how many attempts it had before it was moved to the endpoint
    cost             reserved of the spill budget, until it is settled; `spent` afterwards
    price_input, price_output
                     per million tokens, what the operator pays
    stays            it never leaves again: an agent that took it over may not

The row decides: a message of the queue that a turn has left is dropped by the claim. Only turns that wait are moved. A
turn that another transaction has locked, as to claim or to cancel it, is left to the next pass.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.accounts.residency import Residency
from models.jobs.jobs import Job
from models.jobs.outbox import SUSPECT_CRASHES
from models.jobs.route_costs import ROUTE
from models.platform.database import Connection, fetch_all
from models.serving import spill_budget
from models.serving.queues import endpoint_queue

#: Most moves of a turn. The last one brings it home.
MAX_MOVES = 4

#: What a route has only while it leads to an endpoint.
OF_ENDPOINT = ("attempt", "cost", "price_input", "price_output")

Reason = Literal["queue_full", "engine_down", "probe"]
ReturnReason = Literal["endpoint_failed", "endpoint_saturated", "breaker_open", "residency"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where turns are moved to, and what the budget allows.

    is_local                 the endpoint is in the operator's network: no turn leaves it
    default                  the residency of accounts without one of their own
    price_input, price_output  per million tokens; None: unknown
    money, share             of a day; None: no limit
    """

    endpoint: str
    model: str
    is_local: bool = False
    default: Residency = "any"
    price_input: Decimal | None = None
    price_output: Decimal | None = None
    money: Decimal | None = None
    share: float | None = None

    def route(self, home: str) -> dict[str, Any]:
        """Return what all turns that are moved there have in their route."""
        prices = {"price_input": self.price_input, "price_output": self.price_output}
        shown = {name: str(price) for name, price in prices.items() if price is not None}
        return {"endpoint": self.endpoint, "model": self.model, "home": home, **shown}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A turn to move, and the most that it can cost."""

    job_id: str
    cost: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class MovedTurns:
    """The turns that were moved, and their lanes, in which the relay should publish."""

    job_ids: Sequence[str] = ()
    lanes: frozenset[str] = frozenset()


#: Whether the turn of a row of `jobs` may be sent to an endpoint, as its account says now.
MAY_LEAVE = """(%(is_local)s OR (
    coalesce(arguments ->> 'residency', 'any') <> 'local'
    AND NOT coalesce((arguments -> 'route' ->> 'stays')::bool, false)
    AND EXISTS (SELECT FROM accounts WHERE accounts.id = jobs.account_id
                AND coalesce(account_residency, %(default)s) = 'any')))"""

# In a CTE that is materialized: otherwise the planner may lock other rows than it updates.
SPILL = f"""
WITH waiting AS MATERIALIZED (
    SELECT id AS waiting_id FROM jobs
    WHERE id = ANY(%(ids)s) AND queue = %(home)s AND state = 'queued' AND kind = 'turn.run'
      AND NOT blocked AND cancel_requested_at IS NULL AND crashes < {SUSPECT_CRASHES}
      AND coalesce((arguments -> 'route' ->> 'moves')::int, 0) < %(most_moves)s - 1
      AND {MAY_LEAVE}
      AND (%(reason)s = 'probe' OR NOT EXISTS (
          SELECT FROM circuit_breakers WHERE upstream = %(endpoint)s
          AND (coalesce(forced_state, breaker_state) <> 'closed' OR saturated_until > now())))
    ORDER BY id DESC FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET queue = %(queue)s, published_at = NULL, sends = 0,
    arguments = jsonb_set(arguments, '{{route}}', %(route)s || jsonb_build_object(
        'reason', %(reason)s::text, 'at', now(), 'cost', move_cost::text,
        'attempt', attempt, 'moves', coalesce((arguments -> 'route' ->> 'moves')::int, 0) + 1))
FROM waiting JOIN unnest(%(ids)s::text[], %(costs)s::numeric[]) AS given (given_id, move_cost) ON given_id = waiting_id
WHERE id = waiting_id
RETURNING id, coalesce(lane, account_id) AS lane, move_cost
"""


def spill(
    connection: Connection, home: str, target: Target, turns: Sequence[Candidate], reason: Reason, *, unfinished: int
) -> MovedTurns:
    """Move turns of a local queue to an endpoint's, in their order, as far as the budget of the day has room.

    Call it in a transaction, after all that locks other rows. Turns that do not wait any more, or may not leave by now,
    are left out.

    unfinished  turns that wait or run, for the share of the day's turns
    """
    room = spill_budget.lock_room(
        connection, target.endpoint, money=target.money, share=target.share, unfinished=unfinished
    )
    affordable = within(room, turns)
    if not affordable:
        return MovedTurns()
    rows = fetch_all(connection, SPILL, _spill_parameters(home, target, affordable, reason))
    if rows:
        cost = sum((row["move_cost"] for row in rows), Decimal(0))
        spill_budget.draw(connection, target.endpoint, turns=len(rows), cost=cost)
        count_moves(connection, target.endpoint, reason, len(rows))
    return _moved(rows)


def within(room: spill_budget.BudgetRoom, turns: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return the first turns that fit the budget. One that does not fit lets no later one pass it."""
    total = Decimal(0)
    for number, turn in enumerate(turns):
        total += turn.cost
        if (room.turns is not None and number >= room.turns) or (room.money is not None and total > room.money):
            return turns[:number]
    return turns


def _spill_parameters(home: str, target: Target, turns: Sequence[Candidate], reason: Reason) -> Mapping[str, Any]:
    return {
        "ids": [turn.job_id for turn in turns],
        "costs": [turn.cost for turn in turns],
        "home": home,
        "queue": endpoint_queue(target.endpoint),
        "route": Jsonb(target.route(home)),
        "reason": reason,
        "endpoint": target.endpoint,
        "is_local": target.is_local,
        "default": target.default,
        "most_moves": MAX_MOVES,
    }


# What was reserved is given back. What a turn that the endpoint has begun has spent is not known here: all that was
# reserved for it counts as spent. The days are locked in their order, so that two transactions do not block each other.
RETURN = """
WITH waiting AS MATERIALIZED (
    SELECT id AS waiting_id, arguments -> 'route' AS old_route FROM jobs
    WHERE queue = %(queue)s AND state = 'queued' AND arguments -> 'route' ->> 'home' IS NOT NULL
      AND (%(ids)s::text[] IS NULL OR id = ANY(%(ids)s))
      AND (%(account_id)s::text IS NULL OR account_id = %(account_id)s)
    ORDER BY id DESC LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE jobs SET queue = old_route ->> 'home', published_at = NULL, sends = 0,
        arguments = jsonb_set(arguments, '{route}', (old_route - %(of_endpoint)s::text[])
            || jsonb_build_object('endpoint', NULL, 'model', NULL, 'reason', %(reason)s::text, 'at', now(),
                                  'moves', coalesce((old_route ->> 'moves')::int, 0) + 1))
    FROM waiting WHERE id = waiting_id
    RETURNING id, coalesce(lane, account_id) AS lane, old_route, attempt
), reserved AS (
    SELECT ((old_route ->> 'at')::timestamptz AT TIME ZONE 'UTC')::date AS day, (old_route ->> 'cost')::numeric AS cost,
           attempt > coalesce((old_route ->> 'attempt')::int, 0) AS begun
    FROM moved WHERE old_route ? 'cost'
), days AS (
    SELECT day, sum(cost) AS cost, coalesce(sum(cost) FILTER (WHERE begun), 0) AS spent,
           count(*) FILTER (WHERE NOT begun) AS turns
    FROM reserved GROUP BY day
), locked AS MATERIALIZED (
    SELECT spill_day AS locked_day FROM spill_days JOIN days ON spill_day = days.day
    WHERE upstream = %(endpoint)s ORDER BY spill_day FOR NO KEY UPDATE OF spill_days
), given_back AS (
    UPDATE spill_days SET reserved_cost = greatest(reserved_cost - days.cost, 0),
                          spent_cost = spent_cost + days.spent,
                          spilled_turns = greatest(spilled_turns - days.turns, 0)
    FROM days JOIN locked ON locked_day = days.day WHERE spill_day = days.day AND upstream = %(endpoint)s
)
SELECT id, lane FROM moved
"""


def return_home(
    connection: Connection,
    endpoint: str,
    reason: ReturnReason,
    *,
    job_ids: Collection[str] | None = None,
    account_id: str | None = None,
    limit: int = 1000,
) -> MovedTurns:
    """Move turns that wait for an endpoint back to the queues that they came from. Call it in a transaction.

    Turns whose requests have named the endpoint's model have no home and stay.

    job_ids     only these; None: all
    account_id  only those of an account; None: of all
    """
    ids = list(job_ids) if job_ids is not None else None
    parameters = {"queue": endpoint_queue(endpoint), "endpoint": endpoint, "ids": ids, "account_id": account_id}
    rows = fetch_all(
        connection, RETURN, {**parameters, "reason": reason, "limit": limit, "of_endpoint": list(OF_ENDPOINT)}
    )
    count_moves(connection, endpoint, reason, len(rows))
    return _moved(rows)


def route_home(job: Job, reason: ReturnReason, *, stays: bool = False) -> dict[str, Any] | None:
    """Return the route of a running turn that goes home, for `Moved`; None if it has no home.

    stays  it never leaves again

    Settle what it has spent in the transaction of the move: `models.jobs.route_costs.settle_route`.
    """
    route = job.arguments.get(ROUTE) or {}
    if not route.get("home"):
        return None
    kept = {name: value for name, value in route.items() if name not in OF_ENDPOINT}
    moved = {"endpoint": None, "model": None, "reason": reason, "at": datetime.now(UTC).isoformat()}
    return {**kept, **moved, "moves": route.get("moves", 0) + 1, **({"stays": True} if stays else {})}


COUNT = """
INSERT INTO route_moves AS counted (moved_endpoint, moved_reason, moved_turns)
VALUES (%(endpoint)s, %(reason)s, %(turns)s)
ON CONFLICT (moved_endpoint, moved_reason) DO UPDATE SET moved_turns = counted.moved_turns + excluded.moved_turns
"""


def count_moves(connection: Connection, endpoint: str, reason: str, turns: int = 1) -> None:
    """Count moves between a local model and an endpoint, for the metric. Last in a transaction, after the budget."""
    if turns:
        connection.execute(COUNT, {"endpoint": endpoint, "reason": reason, "turns": turns})


def moves_by_reason(connection: Connection) -> dict[tuple[str, str], int]:
    """Return the moves since the installation, by endpoint and reason."""
    rows = fetch_all(connection, "SELECT moved_endpoint, moved_reason, moved_turns FROM route_moves")
    return {(row["moved_endpoint"], row["moved_reason"]): row["moved_turns"] for row in rows}


def _moved(rows: Sequence[Mapping[str, Any]]) -> MovedTurns:
    return MovedTurns([row["id"] for row in rows], frozenset(row["lane"] for row in rows))

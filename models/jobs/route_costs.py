"""Settle what was reserved of a spill budget for a turn that an endpoint answers for a local model.

The turn's argument `route` has the reserved `cost`, the operator's prices and the time of the move, whose day (UTC) the
reservation belongs to. `models.serving.moves` reserves it. Whatever ends the turn settles it, in its transaction and
after all other statements, like the budget of a tree: no transaction waits for another lock while it holds the day's
row. The cost is removed from the route and replaced by what was spent, so that it is settled once.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from models.platform.database import Connection

#: The argument of a turn's job that says where it was moved to, and what of it was reserved.
ROUTE = "route"

#: What its account sees of a route: not what the operator pays.
SHOWN = ("endpoint", "model", "reason")

#: Tokens that a price is for.
PRICE_UNIT = 1_000_000

# A turn for which nothing was spent is no spilled turn of the day.
SETTLE = """
WITH settled AS (
    UPDATE jobs SET arguments = jsonb_set(arguments #- '{route,cost}', '{route,spent}', to_jsonb(%(spent)s::text))
    WHERE id = %(id)s AND arguments -> 'route' ? 'cost'
    RETURNING id
)
UPDATE spill_days SET reserved_cost = greatest(reserved_cost - %(cost)s, 0), spent_cost = spent_cost + %(spent)s,
                      spilled_turns = greatest(spilled_turns - %(unused)s, 0)
FROM settled
WHERE spill_day = (%(at)s::timestamptz AT TIME ZONE 'UTC')::date AND upstream = %(endpoint)s
"""


def settle_route(
    connection: Connection,
    job_id: str,
    arguments: Mapping[str, Any],
    *,
    input_tokens: int = 0,
    output_tokens: int = 0,
) -> None:
    """Give back what a turn has not spent of its reservation. Does nothing for a turn without one.

    The tokens are those that the endpoint has read and generated for it.
    """
    route = arguments.get(ROUTE) or {}
    if "cost" not in route:
        return
    connection.execute(
        SETTLE,
        {
            "id": job_id,
            "cost": Decimal(route["cost"]),
            "spent": cost_of(route, input_tokens, output_tokens),
            "unused": 0 if input_tokens or output_tokens else 1,
            "at": route["at"],
            "endpoint": route["endpoint"],
        },
    )


def shown_route(route: Mapping[str, Any]) -> dict[str, Any]:
    """Return what its account sees of a route."""
    return {**{name: route.get(name) for name in SHOWN}, "moves": route.get("moves", 0)}


def cost_of(route: Mapping[str, Any], input_tokens: int, output_tokens: int) -> Decimal:
    """Return what so many tokens cost the operator at the prices of a route."""
    prices = Decimal(route.get("price_input") or 0), Decimal(route.get("price_output") or 0)
    return (input_tokens * prices[0] + output_tokens * prices[1]) / PRICE_UNIT

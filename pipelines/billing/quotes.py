"""Quote a turn before it runs: the least and the most that it costs at the prices in force."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from models.billing import prices
from models.billing.currencies import ZERO
from models.billing.prices import NOTICE_SECONDS, Price
from models.platform.database import Connection
from pipelines.agents.agent_turns import engine_model
from pipelines.chat.memory_prompt import memory_token_limit, recall_enabled
from pipelines.chat.service_tiers import ServedTier, served_tier, service_class
from pipelines.chat.start_turn import NewTurn
from pipelines.chat.turn_tokens import max_input_tokens

#: Seconds for which a quote holds where no change of the price is announced: a change is announced before that.
VALID_SECONDS = NOTICE_SECONDS


@dataclass(frozen=True, slots=True)
class Quote:
    """What a turn costs. `reserved` is the cost by the bound of its tokens that a spending limit is checked against.

    `changes_at` is when an announced price begins; None: none is.
    """

    model: str
    service_tier: ServedTier
    currency: str
    input_tokens: int
    counted: bool
    max_output_tokens: int
    lowest: Decimal
    highest: Decimal
    reserved: Decimal
    prices: Sequence[Price]
    changes_at: datetime | None


def quote(connection: Connection, turn: NewTurn, currency: str, context: int, counted: int | None) -> Quote:
    """Quote a turn. `counted` is the number of its prompt's tokens, without recalled memories; None if unknown."""
    model, limit = engine_model(turn.request), turn.request["max_output_tokens"]
    in_force = prices.prices_in_force(connection, model, currency, service_class=service_class(turn.request))
    output = context if limit is None else min(limit, context)
    history = turn.conversation_id is not None or turn.previous_id is not None
    bound = context if history else max_input_tokens(turn.request, turn.input, context)
    memory = memory_token_limit(turn.request, context) if recall_enabled(turn.request) else 0
    most = bound if counted is None else min(context, counted + memory)
    least = 0 if counted is None else min(counted, context)
    return Quote(
        model=model,
        service_tier=served_tier(turn.request),
        currency=currency,
        input_tokens=bound if counted is None else counted,
        counted=counted is not None,
        max_output_tokens=output,
        lowest=min((_lowest(price, least) for price in in_force), default=ZERO),
        highest=prices.highest_cost(in_force, most, output, context),
        reserved=prices.highest_cost(in_force, bound, output, context),
        prices=in_force,
        changes_at=prices.next_change(connection, model, currency),
    )


def _lowest(price: Price, input_tokens: int) -> Decimal:
    return min(price.cost(input_tokens, cached, 0) for cached in (0, input_tokens))

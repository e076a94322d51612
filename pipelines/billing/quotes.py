"""Quote a turn before it runs: the least and the most that it costs at the prices in force."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from models.accounts.plans import Allowance
from models.billing import prices
from models.billing.currencies import ZERO
from models.billing.prices import NOTICE_SECONDS, Price
from models.platform.database import Connection
from models.serving.served_models import ServedModels
from pipelines.agents import definitions
from pipelines.agents.agent_turns import engine_model, resolve_agent, served_by
from pipelines.chat.memory_prompt import memory_token_limit, recall_enabled
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.service_tiers import ServedTier, served_tier, service_class
from pipelines.chat.turn_tokens import max_input_tokens, most_tokens

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


def quote(
    connection: Connection,
    account_id: str,
    turn: NewTurn,
    currency: str,
    context: int,
    counted: int | None,
    models: ServedModels | None = None,
) -> Quote:
    """Quote a turn: all of its generations, without the turns of the agents that it delegates to.

    `counted` is the number of its first prompt's tokens, without recalled memories; None if unknown. Raises NotFound
    for an agent that the account does not have.
    """
    request, definition = resolve_agent(connection, account_id, turn.request, models)
    if (served := served_by(models, request)) is not None:
        context = served.description.context
    request = definitions.apply(definition, request) if definition else request
    model, class_ = engine_model(request), service_class(request)
    in_force = prices.prices_in_force(connection, model, currency, service_class=class_)
    history = turn.conversation_id is not None or turn.previous_id is not None
    allowance = Allowance(context=context, billed=True)
    most = most_tokens(request, turn.input, allowance, definition, history=history)
    bound = context if history else max_input_tokens(request, turn.input, context)
    memory = memory_token_limit(request, context) if recall_enabled(request) else 0
    known = bound if counted is None else min(context, counted + memory)
    least = 0 if counted is None else min(counted, context)
    most_input = most.input_tokens - bound + known
    return Quote(
        model=model,
        service_tier=served_tier(request),
        currency=currency,
        input_tokens=bound if counted is None else counted,
        counted=counted is not None,
        max_output_tokens=most.output_tokens,
        lowest=min((_lowest(price, least) for price in in_force), default=ZERO),
        highest=prices.highest_cost(in_force, most_input, most.output_tokens, most.context),
        reserved=prices.highest_cost(in_force, most.input_tokens, most.output_tokens, most.context),
        prices=in_force,
        changes_at=prices.next_change(connection, model, currency),
    )


def _lowest(price: Price, input_tokens: int) -> Decimal:
    return min(price.cost(input_tokens, cached, 0) for cached in (0, input_tokens))

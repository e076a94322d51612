"""`POST /v1/quotes`: what a response costs at least and at most, before it runs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.billing.currencies import format_amount
from models.platform.errors import Unavailable
from pipelines.billing import quotes
from pipelines.billing.quotes import Quote
from pipelines.chat import token_count
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.prompt_jobs import PromptRequest
from pipelines.chat.service_tiers import ServedTier
from pipelines.requests.turn_request import CreateResponse, new_turn
from web.api.billing.prices import PriceObject, currency_of, price_object
from web.api.request import Request
from web.api.turns.conversion import convert
from web.api.turns.prompt_jobs import run_prompt_job
from web.http import bodies
from web.http.responses import json_response
from web.http.threads import run_in_thread

#: Seconds to wait for the engine's count. Without it the quote has a bound.
COUNT_TIMEOUT = 5.0


class QuoteObject(TypedDict):
    """What a response costs, in the account's currency.

    service_tier          which decides the class of the price
    input_tokens          of the prompt; the most that they can be if they were not counted
    input_tokens_counted  whether the engine has counted them
    max_output_tokens     the most tokens of the answer
    lowest_cost           with all input cached and an empty answer
    highest_cost          the most that is charged
    reserved              what a spending limit must have left for the request to be accepted
    prices                of the model, by endpoint; empty: nothing is charged
    valid_until           the prices do not change before this time
    """

    object: Literal["quote"]
    model: str
    service_tier: ServedTier
    currency: str
    input_tokens: int
    input_tokens_counted: bool
    max_output_tokens: int
    lowest_cost: str
    highest_cost: str
    reserved: str
    prices: Sequence[PriceObject]
    valid_until: int


async def create(request: Request) -> Response:
    """`POST /v1/quotes`: quote the cost of a response, whose body it takes. Nothing is created or charged."""
    body = await bodies.parse_off_loop(request.body, CreateResponse)
    turn = await convert(request, new_turn, body)
    counted = await _count(request, turn)
    return json_response(_quote_object(await run_in_thread(_quote, request, turn, counted)))


async def _count(request: Request, turn: NewTurn) -> int | None:
    """Return the tokens of the prompt, or None if no worker is free to count them."""
    prompt = PromptRequest(turn.request, turn.input, turn.conversation_id, turn.previous_id)
    try:
        result = await run_prompt_job(request, token_count.KIND, prompt, timeout=COUNT_TIMEOUT)
    except Unavailable:
        return None
    return int(result["input_tokens"])


def _quote(request: Request, turn: NewTurn, counted: int | None) -> Quote:
    account_id = request.caller.account_id
    with request.platform.database.connection() as connection:
        currency = currency_of(connection, account_id)
        models = request.platform.serving.state().models
        return quotes.quote(connection, account_id, turn, currency, request.allowance.context, counted, models)


def _quote_object(quote: Quote) -> QuoteObject:
    valid_until = quote.changes_at or datetime.now(UTC) + timedelta(seconds=quotes.VALID_SECONDS)
    return {
        "object": "quote",
        "model": quote.model,
        "service_tier": quote.service_tier,
        "currency": quote.currency,
        "input_tokens": quote.input_tokens,
        "input_tokens_counted": quote.counted,
        "max_output_tokens": quote.max_output_tokens,
        "lowest_cost": format_amount(quote.lowest, quote.currency),
        "highest_cost": format_amount(quote.highest, quote.currency),
        "reserved": format_amount(quote.reserved, quote.currency),
        "prices": [price_object(price) for price in quote.prices],
        "valid_until": int(valid_until.timestamp()),
    }

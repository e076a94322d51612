"""What the turns of a tree cost, for its limit of money: at the highest price that is in force for their model."""

from decimal import Decimal

from models.billing import billing_details, prices
from models.billing.currencies import ZERO
from models.billing.numbering import read_seller
from models.jobs.usage import TokenUsage
from models.platform.database import Connection
from models.turns.responses import Response


def cost(connection: Connection, response: Response, usage: TokenUsage) -> Decimal:
    """Return the most that tokens of a turn cost, in the account's currency; zero without a price."""
    return _highest_cost(connection, response, usage.input_tokens, usage.output_tokens)


def affordable_tokens(connection: Connection, response: Response, money: Decimal) -> int | None:
    """Return how many tokens an amount pays for, whether of prompts or answers; None where they cost nothing."""
    million = 1_000_000
    price = max(_highest_cost(connection, response, million, 0), _highest_cost(connection, response, 0, million))
    return int(money * million / price) if price else None


def _highest_cost(connection: Connection, response: Response, input_tokens: int, output_tokens: int) -> Decimal:
    details = billing_details.read(connection, response.account_id)
    currency = details.currency if details else read_seller(connection).default_currency
    in_force = prices.prices_in_force(connection, response.engine_model, currency)
    return prices.highest_cost(in_force, input_tokens, output_tokens, None) if in_force else ZERO

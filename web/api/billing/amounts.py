"""Amounts of money in requests and responses: decimal strings in the main unit, such as `"19.00"`."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

#: Digits before and after the point: enough for any currency, and for a price of a token.
DECIMAL = re.compile(r"-?\d{1,12}(?:\.\d{1,12})?")


def _to_decimal(value: object) -> Decimal:
    """Convert a decimal string or an integer. A float is rejected: it is not the number that was written."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not DECIMAL.fullmatch(value):
        raise ValueError("should be a decimal number as a string, such as '19.99'")
    return Decimal(value)


#: An amount in a request, of either sign. Its currency is not known yet: see `models.billing.currencies.check_amount`.
Amount = Annotated[
    Decimal,
    BeforeValidator(_to_decimal),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{DECIMAL.pattern}$"}, {"type": "integer"}]}),
]

#: A currency code of ISO 4217, in any case.
Currency = Annotated[str, Field(pattern=r"^[A-Za-z]{3}$")]

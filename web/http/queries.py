"""Parse the queries of requests."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from starlette.datastructures import QueryParams

from pipelines.requests.validation import Model, validate


class RequestQuery(BaseModel):
    """Base class of queries: strings are converted to numbers and booleans; no unknown parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


#: Accepts one value for a list in a query.
as_list = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)


def parse_query(query: QueryParams, model: type[Model]) -> Model:
    """Parse the query string. A repeated parameter, or one named `name[]`, is a list. Raises InvalidRequest."""
    parameters: dict[str, Any] = {}
    for name in query:
        values = query.getlist(name)
        parameters[name.removesuffix("[]")] = values if name.endswith("[]") or len(values) > 1 else values[0]
    return validate(model, parameters)

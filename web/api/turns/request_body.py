"""Read the bodies of the routes that OpenAI's API also has.

Unknown fields are ignored, and the response names them, as it does an effort of a model that does not reason. With
`X-Sangha-Strict: 1` an unknown field or a missing model is an error. Other routes always reject unknown fields.
"""

from collections.abc import Sequence
from functools import partial

from pydantic import BaseModel

from models.platform.errors import InvalidRequest
from pipelines.requests.ignored_fields import header_value, validate_tolerantly
from pipelines.requests.json_objects import parse_object
from pipelines.requests.sampling_parameters import TemplateParameters
from pipelines.requests.validation import Model, missing_parameter
from web.api.request import Request
from web.api.turns.serving import serving_for
from web.http import bodies

#: The request header that makes unknown fields an error, and its value.
STRICT, YES = "X-Sangha-Strict", "1"

#: The response header that names the ignored fields.
IGNORED = "x-sangha-ignored"


async def read_body(request: Request, model: type[Model], *, requires_model: bool = False) -> Model:
    """Parse the body, off the event loop if it is large. Raises InvalidRequest, naming the parameter.

    requires_model  whether OpenAI's API requires `model` on this route: a strict request without it is an error
    """
    if is_strict(request):
        strict_body = await bodies.parse_off_loop(request.body, model)
        if requires_model and getattr(strict_body, "model", None) is None:
            raise missing_parameter("model")
        return strict_body
    body, ignored = await bodies.off_loop(request.body, partial(_parse_tolerantly, model))
    _name_ignored(request, [*ignored, *await _ignored_reasoning(request, body)])
    return body


def parse_body(request: Request, model: type[Model], *, default: bytes = b"") -> Model:
    """Parse the body in this thread; `default` replaces an empty one. Raises InvalidRequest, naming the parameter."""
    content = request.body or default
    if is_strict(request):
        return bodies.parse(content, model)
    body, ignored = _parse_tolerantly(model, content)
    _name_ignored(request, ignored)
    return body


def is_strict(request: Request) -> bool:
    """Return whether unknown fields and a missing model are errors. Raises InvalidRequest for another header value."""
    value = request.headers.get(STRICT)
    if value not in (None, YES):
        raise InvalidRequest(f"'{STRICT}' should be '{YES}'.", param=STRICT)
    return value is not None


def _parse_tolerantly(model: type[Model], body: bytes) -> tuple[Model, list[str]]:
    return validate_tolerantly(model, parse_object(body))


async def _ignored_reasoning(request: Request, body: BaseModel) -> list[str]:
    """Return the fields that ask for reasoning, if the model is known not to reason."""
    fields = [*body.reasoning_fields()] if isinstance(body, TemplateParameters) else []
    if not fields:
        return []
    name = getattr(body, "model", None)
    models = (await serving_for(request, name)).models
    return [] if (models.find(name) or models.default).description.may_reason else fields


def _name_ignored(request: Request, ignored: Sequence[str]) -> None:
    if ignored:
        request.add_headers({IGNORED: header_value(ignored)})

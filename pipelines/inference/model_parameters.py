"""The optional parameters of requests that a model honours."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from models.platform.errors import InvalidRequest
from models.serving.served_models import ModelDescription
from pipelines.inference.registry import OPTIONAL_PARAMETERS

#: Values of parameters without effect. They are accepted for every engine.
NEUTRAL: Mapping[str, tuple[float, ...]] = {
    "presence_penalty": (0,), "frequency_penalty": (0,), "repetition_penalty": (1,), "top_k": (0, -1), "min_p": (0,),
    "typical_p": (1,), "top_logprobs": (0,),
}  # fmt: skip


def check_honoured(parameters: MutableMapping[str, Any], model: ModelDescription) -> None:
    """Raise InvalidRequest for a parameter that the model does not honour, and remove those without effect."""
    for name in sorted((OPTIONAL_PARAMETERS & parameters.keys()) - set(model.parameters)):
        if parameters[name] not in NEUTRAL.get(name, ()) or (name == "top_logprobs" and "logprobs" in parameters):
            raise InvalidRequest(
                f"Unsupported parameter: '{name}'. The model '{model.name}' does not support it.",
                param=name,
                code="unsupported_parameter",
            )
        del parameters[name]

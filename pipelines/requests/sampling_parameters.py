"""Request parameters of sampling and reasoning, the same in both APIs for turns, and their conversion to a turn's.

A parameter that would change the answer is rejected where the engine does not honour it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from models.platform.errors import InvalidRequest
from models.serving.served_models import ModelDescription
from pipelines.chat.prompt import MAX_LOGPROBS, max_logprob_tokens
from pipelines.inference.model_parameters import check_honoured
from pipelines.requests.validation import RequestBody

#: Tokens with a bias, and alternatives with a log probability.
MAX_BIASES, MAX_TOP_LOGPROBS = 300, 20

#: Arguments of a chat template, and characters of one that is a text.
MAX_TEMPLATE_ARGUMENTS, MAX_TEMPLATE_TEXT = 16, 256

#: Arguments of a template that the server sets; a request cannot replace them.
TEMPLATE_INPUT = frozenset(
    {"messages", "tools", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token", "documents"}
)

TokenNumber = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
LogitBias = Annotated[
    dict[TokenNumber, Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES, description="Numbers of tokens in the model's vocabulary, and the bias of each."),
]


def _check_template(arguments: dict[str, Any]) -> dict[str, Any]:
    for name, value in arguments.items():
        if name in TEMPLATE_INPUT:
            raise PydanticCustomError("unsupported_parameter", f"the server sets '{name}' itself")
        if name == "enable_thinking" and not isinstance(value, bool):
            raise PydanticCustomError("bool_type", "should have a boolean 'enable_thinking'")
    return arguments


TemplateArgument = bool | int | float | Annotated[str, Field(max_length=MAX_TEMPLATE_TEXT)]
TemplateArguments = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")], TemplateArgument],
    Field(max_length=MAX_TEMPLATE_ARGUMENTS, description="Arguments of the model's chat template."),
    AfterValidator(_check_template),
]

Penalty = Annotated[float, Field(ge=-2, le=2)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class TemplateParameters(RequestBody):
    """Arguments of the model's chat template, extensions of OpenAI's API."""

    chat_template_kwargs: TemplateArguments | None = None
    enable_thinking: bool | None = Field(None, description="`chat_template_kwargs.enable_thinking`.")

    def reasoning_fields(self) -> Iterable[str]:
        """Return the fields that ask for reasoning, which have no effect on a model that does not reason."""
        return ()


class SamplingParameters(RequestBody):
    """How tokens are sampled. The parameters from `top_k` to `ignore_eos` extend OpenAI's API."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1, description="0 is greedy.")
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    top_k: int | None = Field(None, ge=-1, le=1_000_000, description="0 and -1: all tokens.")
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    repeat_penalty: float | None = Field(None, gt=0, le=10, description="Another name of `repetition_penalty`.")
    logit_bias: LogitBias | None = None
    min_tokens: int | None = Field(None, ge=0, le=1_000_000, description="Only for plain text without tools.")
    ignore_eos: bool | None = Field(None, description="Only for plain text without tools.")


def sampling_parameters(body: SamplingParameters, model: ModelDescription | None, *, logprobs: bool) -> dict[str, Any]:
    """Return the stored parameters: `temperature`, `top_p`, and the others that are set. Raises InvalidRequest.

    `model` is None for an agent, whose model is known when its turn begins.
    """
    parameters = {
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "top_logprobs": body.top_logprobs,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "typical_p": body.typical_p,
        "repetition_penalty": _repetition_penalty(body),
        "logit_bias": body.logit_bias or None,
        "min_tokens": body.min_tokens or None,
        "ignore_eos": body.ignore_eos or None,
    }
    if logprobs:
        parameters |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    stored = {name: value for name, value in parameters.items() if value is not None}
    if model is not None:
        check_honoured(stored, model)
    return {"temperature": body.temperature, "top_p": body.top_p, **stored}  # None: the engine's default


def template_parameters(body: TemplateParameters, model: ModelDescription | None) -> dict[str, Any]:
    """Return the stored arguments of the chat template, if there are any. Raises as `sampling_parameters`."""
    thinking = {} if body.enable_thinking is None else {"enable_thinking": body.enable_thinking}
    arguments = {**(body.chat_template_kwargs or {}), **thinking}
    stored: dict[str, Any] = {"chat_template_kwargs": arguments} if arguments else {}
    if model is not None:
        check_honoured(stored, model)
    return stored


def check_plain_text(body: SamplingParameters, tools: Sequence[object], format_type: str) -> None:
    """Raise InvalidRequest if `min_tokens` or `ignore_eos` is set for an answer that a grammar constrains."""
    for name in ("min_tokens", "ignore_eos"):
        if getattr(body, name) and (tools or format_type != "text"):
            raise InvalidRequest(
                f"Unsupported parameter: '{name}'. It requires a plain text answer, without tools.", param=name,
                code="unsupported_parameter",
            )  # fmt: skip


def check_min_tokens(body: SamplingParameters, max_tokens: int | None, param: str) -> None:
    """Raise InvalidRequest if `min_tokens` exceeds the limit, whose parameter is `param`."""
    if body.min_tokens and max_tokens and body.min_tokens > max_tokens:
        raise InvalidRequest(
            f"Invalid value for 'min_tokens': {body.min_tokens} is more than '{param}', {max_tokens}.",
            param="min_tokens",
            code="invalid_value",
        )


def logprob_limit(parameters: Mapping[str, Any], max_tokens: int | None, choices: int) -> dict[str, Any]:
    """Return the stored limit of log probabilities, where there are several choices.

    Raises InvalidRequest if answers of `max_tokens` would have more.
    """
    if not parameters.get("logprobs"):
        return {}
    limit = {} if choices == 1 else {"max_logprobs": MAX_LOGPROBS // choices}
    most = max_logprob_tokens({**parameters, **limit})
    if max_tokens and max_tokens > most:
        total = max_tokens * (1 + parameters["top_logprobs"]) * choices
        of_choices = f" in each of {choices} choices" if choices > 1 else ""
        raise InvalidRequest(
            f"Invalid value for 'max_output_tokens': {max_tokens:,} tokens with 'top_logprobs': "
            f"{parameters['top_logprobs']}{of_choices} have {total:,} log probabilities. The maximum is "
            f"{MAX_LOGPROBS:,}: use at most {most:,} tokens.",
            param="max_output_tokens",
            code="invalid_value",
        )
    return limit


def _repetition_penalty(body: SamplingParameters) -> float | None:
    if body.repetition_penalty is not None and body.repeat_penalty not in (None, body.repetition_penalty):
        raise InvalidRequest(
            "Mutually exclusive parameters: 'repetition_penalty' and 'repeat_penalty'. Provide only one of them.",
            param="repeat_penalty",
        )
    return body.repeat_penalty if body.repetition_penalty is None else body.repetition_penalty

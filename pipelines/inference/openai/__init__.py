"""Any OpenAI-compatible endpoint over HTTP, such as a hosted API, vLLM or llama-server.

The pool `upstream` serves all models of SANGHA_UPSTREAMS. With `SANGHA_ENGINE=openai` the first model of the first
upstream is the engine of the pool `inference` instead.
"""

from collections.abc import Sequence
from dataclasses import asdict
from urllib.parse import urlsplit

from models.platform.settings import Settings
from models.platform.upstreams import HOSTED_CONTEXT, Upstream
from models.serving.served_models import ModelDescription
from pipelines.inference.engine import Engine
from pipelines.inference.registry import OPTIONAL_PARAMETERS, EngineSpec, EngineStatus, SamplingDefaults

#: The optional parameters of OpenAI's own Chat Completions, and of Responses.
OPENAI_PARAMETERS = frozenset({"presence_penalty", "frequency_penalty", "logit_bias", "top_logprobs"})
RESPONSES_PARAMETERS = frozenset({"top_logprobs"})


def pool_models(settings: Settings) -> Sequence[tuple[Upstream, str]]:
    """Return the endpoints and models that the pool `upstream` serves: all but that of the pool `inference`."""
    pairs = [(upstream, model) for upstream in settings.upstreams for model in upstream.models]
    return pairs[1:] if settings.engine == "openai" else pairs


def describe_upstream(upstream: Upstream, model: str, *, takes_spilled: bool = False) -> ModelDescription:
    """Describe a model of an endpoint, as far as the settings know it."""
    return ModelDescription(
        name=model,
        endpoint=upstream.name,
        engine="openai",
        context=upstream_context(upstream),
        slots=upstream.slots,
        parameters=sorted(upstream_parameters(upstream)),
        sampling_defaults=asdict(SamplingDefaults()),
        may_reason=True,
        is_local=upstream.is_local,
        supports_reflection=True,
        continues=upstream.continues,
        takes_spilled=takes_spilled,
    )


def upstream_context(upstream: Upstream) -> int:
    """Return the tokens of prompt and answer together."""
    return upstream.context or HOSTED_CONTEXT


def upstream_parameters(upstream: Upstream) -> frozenset[str]:
    """Return the optional parameters that an endpoint may honour. OpenAI's own rejects those that its API lacks."""
    from pipelines.inference.openai.completions import is_openai

    if upstream.api == "responses":
        return RESPONSES_PARAMETERS
    return OPENAI_PARAMETERS if is_openai(urlsplit(upstream.url).netloc) else OPTIONAL_PARAMETERS


def _load(settings: Settings) -> Engine:
    from pipelines.inference.openai.engine import OpenAIEngine

    return OpenAIEngine(
        settings.upstreams[0],
        _model_name(settings),
        slots=settings.slots,
        context=_context(settings),
        isolates_prompts=settings.prompt_cache == "account",
    )


def _model_name(settings: Settings) -> str:
    return settings.upstreams[0].models[0]


def _check(settings: Settings) -> EngineStatus:
    """Check that the endpoint generates a token."""
    from pipelines.inference.openai.engine import probe

    return EngineStatus(probe(settings.upstreams[0], _model_name(settings)))


def _supports_reflection(settings: Settings) -> bool:
    """Return True: the operator chose the model."""
    return True


def _context(settings: Settings) -> int:
    return settings.context or upstream_context(settings.upstreams[0])


def _parameters(settings: Settings) -> frozenset[str]:
    return upstream_parameters(settings.upstreams[0])


def _is_local(settings: Settings) -> bool:
    """Return whether the endpoint is in the operator's network."""
    return settings.upstreams[0].is_local


ENGINE = EngineSpec(
    _load, _model_name, _check, _supports_reflection, requires=("upstreams",), parameters=_parameters, context=_context,
    is_local=_is_local, endpoint=lambda settings: settings.upstreams[0].name,
    continues=lambda settings: settings.upstreams[0].continues,
)  # fmt: skip

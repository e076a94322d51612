"""Any OpenAI-compatible endpoint over HTTP, such as a hosted API, vLLM or llama-server: `SANGHA_ENGINE=openai`.

Uses the first upstream of SANGHA_UPSTREAMS and its first model.
"""

from urllib.parse import urlsplit

from models.platform.settings import Settings
from pipelines.inference.engine import Engine
from pipelines.inference.registry import OPTIONAL_PARAMETERS, EngineSpec, EngineStatus

HOSTED_CONTEXT = 32_768

OPENAI_PARAMETERS = frozenset({"presence_penalty", "frequency_penalty", "logit_bias", "top_logprobs"})


def _load(settings: Settings) -> Engine:
    from pipelines.inference.openai.engine import OpenAIEngine

    return OpenAIEngine(settings)


def _model_name(settings: Settings) -> str:
    return settings.upstreams[0].models[0]


def _check(settings: Settings) -> EngineStatus:
    """Check that the endpoint generates a token."""
    from pipelines.inference.openai.engine import probe

    return EngineStatus(probe(settings))


def _supports_reflection(settings: Settings) -> bool:
    """Return True: the operator chose the model."""
    return True


def _context(settings: Settings) -> int:
    """Return the context. Endpoints do not publish that of their models; nearly all have at least HOSTED_CONTEXT."""
    return settings.context or HOSTED_CONTEXT


def _parameters(settings: Settings) -> frozenset[str]:
    """Return the parameters that the endpoint may honour. OpenAI's own rejects those that its API lacks."""
    from pipelines.inference.openai.completions import is_openai

    return OPENAI_PARAMETERS if is_openai(urlsplit(settings.upstreams[0].url).netloc) else OPTIONAL_PARAMETERS


def _is_local(settings: Settings) -> bool:
    """Return whether the endpoint is in the operator's network."""
    return settings.upstreams[0].is_local


ENGINE = EngineSpec(
    _load, _model_name, _check, _supports_reflection, requires=("upstreams",), parameters=_parameters, context=_context,
    is_local=_is_local, endpoint=lambda settings: settings.upstreams[0].name,
)  # fmt: skip

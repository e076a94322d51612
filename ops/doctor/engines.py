"""Checks of the engine and the embedder."""

from collections.abc import Mapping
from functools import partial

from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from ops.doctor.finding import Check, Finding
from pipelines.inference.engine import EngineError
from pipelines.inference.openai import pool_models
from pipelines.inference.registry import engine_spec

#: The ending of the variable to check, by the kind of an endpoint's failure; others: its URL.
VARIABLES_OF_KINDS: Mapping[str, str] = {"auth": "API_KEY", "quota": "API_KEY", "model_not_found": "MODELS"}


def engine(settings: Settings) -> Finding:
    """Check that the engine's model is there: a GGUF file, or an endpoint that generates a token."""
    status = engine_spec(settings).check(settings)
    return Finding("warn" if status.remedy else "ok", "engine", status.detail, status.remedy)


def endpoint_checks(settings: Settings) -> list[Check]:
    """Return a check for each endpoint that the pool `upstream` serves."""
    first_models: dict[str, tuple[Upstream, str]] = {}
    for upstream, model in pool_models(settings):
        first_models.setdefault(upstream.name, (upstream, model))
    return [partial(endpoint, upstream, model) for upstream, model in first_models.values()]


def endpoint(upstream: Upstream, model: str, settings: Settings) -> Finding:
    """Check that an endpoint generates a token with one of its models. Shows no API key."""
    from pipelines.inference.openai.endpoint_errors import EndpointError, EndpointRejection
    from pipelines.inference.openai.engine import probe

    name = f"endpoint {upstream.name}"
    try:
        return Finding("ok", name, probe(upstream, model))
    except (EndpointError, EndpointRejection) as error:
        variable = f"SANGHA_UPSTREAM_{upstream.name.upper()}_{VARIABLES_OF_KINDS.get(error.kind, 'URL')}"
        return Finding("FAIL", name, f"{model} at {upstream.url}: {error}", f"check {variable}")
    except EngineError as error:
        return Finding("FAIL", name, str(error))


def embedding_model(settings: Settings) -> Finding:
    """Check that the embedding model is a GGUF file."""
    from pipelines.inference.llamacpp.gguf_files import embedder_file, name_and_size

    return Finding("ok", "embedding model", name_and_size(embedder_file(settings)))

"""Find engines by name. To add an engine, write a module with an `ENGINE` of type EngineSpec and a line in MODULES."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, variable_name
from models.serving.served_models import ModelDescription
from pipelines.inference.engine import Engine

#: The values of SANGHA_ENGINE, and the module that describes each engine. It is imported by name, and imports the
#: engine's own libraries only in `load` and `check`, so that processes that load no engine import none of them.
MODULES = {
    "ctransformers": "pipelines.inference.ctransformers",
    "llamacpp": "pipelines.inference.llamacpp",
    "openai": "pipelines.inference.openai",
    "scripted": "pipelines.inference.scripted",
}

#: Tokens of the context of an engine without a default of its own.
DEFAULT_CONTEXT = 4096

#: Request parameters of sampling and chat templates that not every engine honours.
OPTIONAL_PARAMETERS = frozenset(
    {
        "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias",
        "min_tokens", "ignore_eos", "top_logprobs", "chat_template_kwargs",
    }
)  # fmt: skip

#: The bundled embedding model: all-MiniLM-L6-v2, Apache-2.0.
BUNDLED_EMBEDDER = "all-minilm-l6-v2"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The result of an engine's check. A remedy makes it a warning."""

    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The values that an engine uses where a request has none; the defaults are those of OpenAI's API."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The description of an engine, which is available without loading it.

    load                 loads the engine; takes memory and threads, so call it once a process, after forking.
                         Raises ConfigurationError with one line when the model is missing or can't be read
    model_name           the name under which clients know the model; reads no file
    check                the check of `sangha doctor`. Raises SanghaError
    supports_reflection  whether the model is good enough to write facts and insights: the default of SANGHA_REFLECTION
    requires             fields of Settings that must be set
    sampling_defaults    the values that it uses where a request has none
    parameters           those of OPTIONAL_PARAMETERS that it honours
    context              tokens of prompt and answer together: SANGHA_CONTEXT, or else its own default
    may_reason           whether its model may reason; True where that is unknown
    is_local             whether the model runs in the network of the installation
    endpoint             the upstream that serves it; empty: a local engine
    slots                concurrent answers of a worker
    """

    load: Callable[[Settings], Engine]
    model_name: Callable[[Settings], str]
    check: Callable[[Settings], EngineStatus]
    supports_reflection: Callable[[Settings], bool]
    requires: tuple[str, ...] = ()
    sampling_defaults: SamplingDefaults = SamplingDefaults()
    parameters: Callable[[Settings], frozenset[str]] = lambda _: OPTIONAL_PARAMETERS
    context: Callable[[Settings], int] = lambda settings: settings.context or DEFAULT_CONTEXT
    may_reason: Callable[[Settings], bool] = lambda _: True
    is_local: Callable[[Settings], bool] = lambda _: True
    endpoint: Callable[[Settings], str] = lambda _: ""
    slots: Callable[[Settings], int] = lambda settings: settings.slots
    continues: Callable[[Settings], bool] = lambda _: True

    def describe(self, settings: Settings) -> ModelDescription:
        """Describe the model of the settings. May read its file, once."""
        return ModelDescription(
            name=self.model_name(settings),
            endpoint=self.endpoint(settings),
            engine=settings.engine,
            context=self.context(settings),
            slots=self.slots(settings),
            parameters=sorted(self.parameters(settings)),
            sampling_defaults=asdict(self.sampling_defaults),
            may_reason=self.may_reason(settings),
            is_local=self.is_local(settings),
            supports_reflection=self.supports_reflection(settings),
            continues=self.continues(settings),
        )


def engine_spec(settings: Settings) -> EngineSpec:
    """Return the engine that the settings name.

    Raises ConfigurationError with one line when there is no such engine, or a setting that it requires is unset.
    """
    module = MODULES.get(settings.engine)
    if module is None:
        *names, last = (repr(name) for name in MODULES)
        raise ConfigurationError(f"SANGHA_ENGINE is {settings.engine!r}: it should be {', '.join(names)} or {last}")
    spec: EngineSpec = import_module(module).ENGINE
    for field in spec.requires:
        if not getattr(settings, field):
            raise ConfigurationError(f"{variable_name(field)} is unset: SANGHA_ENGINE={settings.engine} needs it")
    return spec


def load_engine(settings: Settings) -> Engine:
    """Load the engine that the settings name. Raises ConfigurationError; see EngineSpec."""
    return engine_spec(settings).load(settings)


def describe(settings: Settings) -> ModelDescription:
    """Describe the model of the settings without loading it. May read its file, once. Raises ConfigurationError."""
    return engine_spec(settings).describe(settings)


def default_description(settings: Settings) -> ModelDescription:
    """Describe the default model, as far as the settings know it: until its worker does. Raises ConfigurationError."""
    description = describe(settings)
    return replace(description, name=settings.default_model or description.name)


def default_model(settings: Settings) -> str:
    """Return the name of the model that has the queue `inference`. Raises ConfigurationError."""
    return settings.default_model or model_name(settings)


def model_name(settings: Settings) -> str:
    """Return the name of the engine's model. Loads no engine and reads no file. Raises ConfigurationError."""
    return engine_spec(settings).model_name(settings)


def sampling_defaults(settings: Settings) -> SamplingDefaults:
    """Return the values that take effect where a request has none. Raises ConfigurationError."""
    return engine_spec(settings).sampling_defaults


def context_size(settings: Settings) -> int:
    """Return the tokens of prompt and answer together; an estimate if the engine's files are missing.

    Raises ConfigurationError.
    """
    return engine_spec(settings).context(settings)


def honoured_parameters(settings: Settings) -> frozenset[str]:
    """Return which of OPTIONAL_PARAMETERS the engine honours. Raises ConfigurationError."""
    return engine_spec(settings).parameters(settings)


def may_reason(settings: Settings) -> bool:
    """Return whether the engine's model may reason. May read the model's file, once. Raises ConfigurationError."""
    return engine_spec(settings).may_reason(settings)


def is_local(settings: Settings) -> bool:
    """Return whether the engine's model runs in the network of the installation. Raises ConfigurationError."""
    return engine_spec(settings).is_local(settings)


def embedder_name(settings: Settings) -> str:
    """Return the name of the embedding model. Reads no file."""
    return Path(settings.embedding_model).stem if settings.embedding_model else BUNDLED_EMBEDDER


def reflection_enabled(settings: Settings) -> bool:
    """Return whether the model may write facts and insights. Raises ConfigurationError."""
    if settings.reflection == "auto":
        return engine_spec(settings).supports_reflection(settings)
    return settings.reflection == "on"

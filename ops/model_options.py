"""The option `--model [NAME=]PATH` of `sangha up` and `sangha worker`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.platform.errors import ConfigurationError
from models.platform.setting_checks import served_name
from models.platform.settings import Settings
from pipelines.inference.registry import default_model


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model's name in requests, and its file."""

    name: str
    path: str


def parse_models(options: Sequence[str]) -> list[NamedModel]:
    """Parse the values of `--model`. Raises ConfigurationError."""
    models = [_parse(option) for option in options]
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"--model names a model twice: {', '.join(names)}")
    return models


def _parse(option: str) -> NamedModel:
    """Parse `NAME=PATH`, or PATH, which may contain `=`: then the name is the file's."""
    name, equals, path = option.partition("=")
    if not equals or ("/" in name and Path(option).exists()):
        name, path = Path(option).stem, option
    try:
        served_name(name)
    except ValueError as error:
        raise ConfigurationError(f"--model {option}: the name {name!r} {error}") from None
    if not path:
        raise ConfigurationError(f"--model {option}: it should be NAME=PATH, or the path of a GGUF file")
    return NamedModel(name, path)


def serving(settings: Settings, models: Sequence[NamedModel], pools: Sequence[str]) -> Settings:
    """Return the settings of a worker that serves the model of its command line. Raises ConfigurationError."""
    if not models:
        return settings
    if "inference" not in pools:
        raise ConfigurationError("--model is for workers of the pool inference: name it, too")
    if len(models) > 1:
        raise ConfigurationError("a worker serves one model: start one for each --model")
    (model,) = models
    fields = {"default_model": default_model(settings), "model": model.path, "model_name": model.name}
    return settings.model_copy(update=fields)


def default_first(settings: Settings, models: Sequence[NamedModel]) -> Settings:
    """Return the settings of all processes of `sangha up`: its default model is the first one, unless one is set."""
    if not models:
        return settings
    name = settings.default_model or models[0].name
    described = {model.name: {"model": model.path, "model_name": model.name} for model in models}
    return settings.model_copy(update={"default_model": name, **described.get(name, {})})


def model_arguments(model: NamedModel) -> list[str]:
    """Return the arguments of `sangha worker` for a model."""
    return ["--model", f"{model.name}={model.path}"]

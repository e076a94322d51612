"""The option `--model`."""

import pytest

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from ops.model_options import NamedModel, default_first, parse_models, serving
from ops.up import processes
from pipelines.inference.registry import default_model, model_name

SETTINGS = Settings(model="/models/small.gguf")


def test_a_model_has_the_name_that_is_given_or_that_of_its_file():
    assert parse_models(["llama=/m/a.gguf", "/m/b.gguf", "org/c:8b=d.gguf"]) == [
        NamedModel("llama", "/m/a.gguf"), NamedModel("b", "/m/b.gguf"), NamedModel("org/c:8b", "d.gguf"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["default=a.gguf"], "not be default"),
        (["x_batch=a.gguf"], "should not end with _batch"),
        (["x="], "NAME=PATH"),
        (["a=1.gguf", "a=2.gguf"], "twice"),
    ],
)
def test_a_malformed_option_is_rejected(options, fault):
    with pytest.raises(ConfigurationError, match=fault):
        parse_models(options)


def test_a_worker_with_a_model_keeps_the_default_model_of_the_installation():
    settings = serving(SETTINGS, parse_models(["large=/m/large.gguf"]), ["inference"])
    assert (model_name(settings), settings.model, default_model(settings)) == ("large", "/m/large.gguf", "small")


def test_a_model_needs_the_pool_inference():
    with pytest.raises(ConfigurationError, match="pool inference"):
        serving(SETTINGS, parse_models(["large=/m/large.gguf"]), ["memory"])


def test_up_starts_a_worker_for_each_model_and_tells_all_processes_the_default():
    models = parse_models(["large=/m/large.gguf", "org/tiny=/m/tiny.gguf"])
    services = processes(default_first(Settings(), models), models)
    names = [service.name for service in services]
    assert names[0] == "worker-inference"
    assert names[1].startswith("worker-inference-org-tiny-")
    assert all(service.environment()["SANGHA_DEFAULT_MODEL"] == "large" for service in services)
    assert services[1].arguments[-2:] == ["--model", "org/tiny=/m/tiny.gguf"]

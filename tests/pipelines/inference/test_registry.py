"""Engines are found by name, and only the engine asked for is imported."""

import subprocess
import sys

import pytest

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.inference.registry import (
    MODULES,
    EngineSpec,
    embedder_name,
    engine_spec,
    is_local,
    load_engine,
    model_name,
    reflection_enabled,
    sampling_defaults,
)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Settings(), "smollm2-135m-instruct"),
        (Settings(model="/models/Llama-3.1-8B.Q4_K_M.gguf"), "Llama-3.1-8B.Q4_K_M"),
        (Settings(engine="scripted", model="/models/other.gguf"), "scripted"),
        (
            Settings(engine="openai", upstreams=(Upstream("x", "https://x/v1", ("big/model-7", "small")),)),
            "big/model-7",
        ),
    ],
)
def test_the_model_has_a_name_before_the_engine_is_loaded(settings: Settings, name: str) -> None:
    assert model_name(settings) == name


@pytest.mark.parametrize(
    ("settings", "temperature", "top_p"),
    [
        (Settings(), 0.8, 0.95),
        (Settings(engine="scripted"), 1.0, 1.0),
        (Settings(engine="openai", upstreams=(Upstream("x", "https://x/v1", ("m",)),)), 1.0, 1.0),
    ],
)
def test_the_values_of_a_request_without_any_are_known_before_the_engine_is_loaded(
    settings: Settings, temperature: float, top_p: float
) -> None:
    defaults = sampling_defaults(settings)
    assert (defaults.temperature, defaults.top_p) == (temperature, top_p)
    assert (defaults.presence_penalty, defaults.frequency_penalty) == (0.0, 0.0)


def test_the_embedder_has_a_name_before_it_is_loaded() -> None:
    assert embedder_name(Settings()) == "all-minilm-l6-v2"
    assert embedder_name(Settings(embedding_model="/models/bge.gguf")) == "bge"


def test_the_scripted_engine_loads_by_name() -> None:
    engine = load_engine(Settings(engine="scripted", slots=3, context=300))
    assert (engine.name, engine.slots, engine.context) == ("scripted", 3, 300)
    engine.close()


def test_the_scripted_engine_does_not_import_llama_cpp() -> None:
    program = (
        "import sys; from models.platform.settings import Settings; from pipelines.inference import registry; "
        "registry.load_engine(Settings(engine='scripted')); assert 'xllamacpp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


UPSTREAMS = (Upstream("x", "https://x/v1", ("m",)),)


@pytest.mark.parametrize("name", MODULES)
def test_every_registered_engine_is_described(name: str) -> None:
    assert isinstance(engine_spec(Settings(engine=name, upstreams=UPSTREAMS, model="m.gguf")), EngineSpec)


def test_an_unknown_engine_is_one_line_that_names_the_variable_and_the_engines() -> None:
    with pytest.raises(ConfigurationError, match="llamacpp") as caught:
        load_engine(Settings(engine="gpt"))

    engines = "'ctransformers', 'llamacpp', 'openai' or 'scripted'"
    assert str(caught.value) == f"SANGHA_ENGINE is 'gpt': it should be {engines}"


def test_an_engine_without_a_setting_that_it_requires_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^SANGHA_UPSTREAMS is unset: SANGHA_ENGINE=openai needs it$"):
        model_name(Settings(engine="openai"))


@pytest.mark.parametrize(
    ("settings", "enabled"),
    [
        (Settings(), False),
        (Settings(model="/models/llama.gguf"), True),
        (Settings(engine="openai", upstreams=UPSTREAMS), True),
        (Settings(engine="scripted"), False),
        (Settings(reflection="on"), True),
        (Settings(model="/models/llama.gguf", reflection="off"), False),
    ],
)
def test_reflection_is_enabled_by_default_for_a_model_that_the_operator_chose(
    settings: Settings, enabled: bool
) -> None:
    assert reflection_enabled(settings) is enabled


@pytest.mark.parametrize(("url", "local"), [
    ("http://localhost:8080/v1", True), ("http://vllm:8000/v1", True), ("http://10.0.0.7/v1", True),
    ("http://[::1]/v1", True), ("https://api.example.com/v1", False), ("http://8.8.8.8/v1", False),
])  # fmt: skip
def test_an_endpoint_is_local_by_its_address(url, local):
    settings = Settings(engine="openai", upstreams=(Upstream("x", url, ("model",)),))

    assert is_local(settings) is local
    assert is_local(Settings(engine="scripted"))

"""Names cost nothing, and only the engine asked for is imported."""

import subprocess
import sys

import pytest

from models.platform.settings import Settings
from pipelines.inference.names import embedder_name, model_name
from pipelines.inference.registry import load_engine


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Settings(), "smollm2-135m-instruct"),
        (Settings(model="/models/Llama-3.1-8B.Q4_K_M.gguf"), "Llama-3.1-8B.Q4_K_M"),
        (Settings(engine="scripted", model="/models/other.gguf"), "scripted"),
        (Settings(engine="openai", fallback_url="https://x/v1", fallback_model="big/model-7"), "big/model-7"),
    ],
)
def test_the_engine_has_a_name_before_it_is_loaded(settings: Settings, name: str) -> None:
    assert model_name(settings) == name


def test_the_embedder_has_a_name_before_it_is_loaded() -> None:
    assert embedder_name(Settings()) == "all-minilm-l6-v2"
    assert embedder_name(Settings(embedding_model="/models/bge.gguf")) == "bge"


def test_the_scripted_engine_loads_by_name() -> None:
    engine = load_engine(Settings(engine="scripted", slots=3, context=300))
    assert (engine.name, engine.slots, engine.context) == ("scripted", 3, 300)
    engine.close()


def test_names_and_the_scripted_engine_import_no_library_of_another() -> None:
    program = (
        "import sys; from models.settings import Settings; from pipelines.inference import names, loading; "
        "loading.load_engine(Settings(engine='scripted')); assert 'xllamacpp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""Generate with the engine `openai` and an endpoint of a test."""

import threading
from collections.abc import Callable, Iterator

from models.platform.settings import Settings
from models.platform.upstreams import DEFAULT_TIMEOUT, Upstream
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    Sampling,
    Token,
    Tool,
)
from pipelines.inference.openai.engine import OpenAIEngine
from pipelines.inference.registry import load_engine
from tests.pipelines.inference.openai.endpoint import (
    Endpoint,
    ReceivedRequest,
)

PROMPT = [Message("system", "be kind"), Message("user", "hello there")]

KEY = "sk-hunter2"

WEATHER = Tool("weather", "of a city", {"type": "object", "properties": {"city": {"type": "string"}}})


def settings_of(endpoint: Endpoint, *, https: bool = False, timeout: int = DEFAULT_TIMEOUT) -> Settings:
    url = endpoint.url.replace("http:", "https:") if https else endpoint.url
    upstream = Upstream("test", url, ("big",), KEY, timeout=timeout)
    return Settings(engine="openai", upstreams=(upstream,), slots=2, context=900)


def engine_of(settings: Settings) -> OpenAIEngine:
    """Return the engine of the settings."""
    engine = load_engine(settings)
    assert isinstance(engine, OpenAIEngine)
    return engine


def generate(
    engine: OpenAIEngine,
    output_format: OutputFormat = PLAIN_TEXT,
    prompt: list[Message] = PROMPT,
    cancelled: Callable[[], bool] = lambda: False,
    **sampling: object,
) -> Iterator[EngineOutput]:
    options = Sampling(**{"max_output_tokens": 50, **sampling})  # type: ignore[arg-type]
    return engine.generate(prompt, prefix="", sampling=options, cancelled=cancelled, output_format=output_format)


def answer(
    engine: OpenAIEngine, output_format: OutputFormat = PLAIN_TEXT, **sampling: object
) -> tuple[str, list[GeneratedCall], Finish]:
    """Return the text, the calls and the end of an answer. Checks that the counts add up."""
    *outputs, finish = generate(engine, output_format, **sampling)
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(output.count for output in outputs if not isinstance(output, Finish))
    text = "".join(output.text for output in outputs if isinstance(output, Token))
    return text, [output for output in outputs if isinstance(output, GeneratedCall)], finish


def wait_for_disconnect(request: ReceivedRequest, freed: threading.Event) -> None:
    if request.disconnects():
        freed.set()

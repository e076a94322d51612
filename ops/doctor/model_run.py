"""Load a model and generate a few tokens with it."""

import time
from dataclasses import dataclass

from models.platform.settings import Settings
from pipelines.inference.engine import Engine, Finish, Message, Sampling
from pipelines.inference.registry import load_engine

#: Words of the prompt, and tokens of the answer. A slot has room for both in any vocabulary.
WORDS, TOKENS, CONTEXT = 150, 32, 2048

#: Seconds after which a run ends.
LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class ModelRun:
    """The result: what the chat template supports, seconds to load, and tokens a second of prompt and answer."""

    has_template: bool
    tools: str
    reasons: bool
    load_seconds: float
    prompt_speed: float
    speed: float


def run_model(settings: Settings, *, has_template: bool) -> ModelRun:
    """Load the model with one slot and measure it. Raises ConfigurationError where it cannot be loaded."""
    began = time.monotonic()
    engine = load_engine(settings.model_copy(update={"slots": 1, "context": CONTEXT}))
    try:
        loaded = time.monotonic() - began
        prompt_speed, speed = _speeds(engine)
        return ModelRun(has_template, _tools(engine), engine.reasons, loaded, prompt_speed, speed)
    finally:
        engine.close()


def _speeds(engine: Engine) -> tuple[float, float]:
    prompt = [Message("user", " ".join(str(number % 10) for number in range(WORDS)))]
    began, first, generated = time.monotonic(), 0.0, 0
    end = began + LIMIT
    sampling = Sampling(TOKENS, temperature=0, ignore_eos=True)
    for output in engine.generate(prompt, prefix="", sampling=sampling, cancelled=lambda: time.monotonic() > end):
        first = first or time.monotonic() - began
        if isinstance(output, Finish):
            generated = output.generated_tokens
    seconds = time.monotonic() - began
    return engine.count(prompt) / first, max(0, generated - 1) / max(seconds - first, 1e-6)


def _tools(engine: Engine) -> str:
    template = getattr(engine, "tool_template", None)
    if template is None or not template.renders:
        return "described in the system message"
    return "through it, one call an answer" if template.markup.starts_answer else "through it"

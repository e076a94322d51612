"""Load a model in its own process as a worker does, and measure it. Writes one JSON line."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import psutil  # type: ignore[import-untyped]

from bench.harness.helper import write_line
from models.platform.settings import load_settings
from pipelines.inference.engine import Engine, Finish, Message, Sampling
from pipelines.inference.registry import load_engine

#: Words of the first prompt, and tokens of each answer.
WORDS, TOKENS = 120, 16


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn: seconds to the first token, tokens a second after it, and the prompt's tokens, all and cached."""

    first: float
    speed: float
    prompt: int
    cached: int


@dataclass(frozen=True, slots=True)
class LlamaRun:
    """Seconds to load, bytes of memory, and turns: a new prompt, the same one again, the next of its conversation."""

    load: float
    memory: int
    turns: Sequence[Turn]


def main() -> None:
    """Measure the model of the settings."""
    began = time.monotonic()
    engine = load_engine(load_settings())
    load = time.monotonic() - began
    prompt = [Message("system", "the of and to " * (WORDS // 4)), Message("user", "what is it")]
    turns = [run(engine, prompt), run(engine, prompt)]
    turns.append(run(engine, [*prompt, Message("assistant", "it is"), Message("user", "and that")]))
    write_line(asdict(LlamaRun(load, private_memory(), turns)))
    os._exit(0)  # Python's own exit would wait for llama.cpp's threads


def private_memory() -> int:
    """Return the bytes of this process without the file's pages, which the system drops when memory is short."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def run(engine: Engine, prompt: Sequence[Message]) -> Turn:
    """Answer a prompt."""
    sampling = Sampling(TOKENS, temperature=0, ignore_eos=True)
    began = time.monotonic()
    outputs = engine.generate(prompt, prefix="", sampling=sampling, cancelled=lambda: False)
    next(outputs)
    first = time.monotonic() - began
    *_, finish = outputs
    assert isinstance(finish, Finish)
    speed = (finish.generated_tokens - 1) / max(time.monotonic() - began - first, 1e-6)
    return Turn(first, speed, finish.prompt_tokens, finish.cached_tokens)


if __name__ == "__main__":
    main()

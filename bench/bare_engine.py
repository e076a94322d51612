"""Run the engine without the platform in its own process, as the baseline for the platform's figures.

The process loads the model as a worker does, with the same slots and threads. `bare` calls llama.cpp's
`handle_chat_completions` with callbacks; `wrapped` goes through our `Engine`, on the same server. It answers one JSON
line for each that it reads, and does nothing in between.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from bench.harness.helper import Helper, helper, write_line
from bench.harness.processes import environment_of
from models.platform.settings import Settings, load_settings

Variant = Literal["bare", "wrapped"]


@dataclass(frozen=True, slots=True)
class Generation:
    """Answers generated together: the tokens of all, the seconds that they took, and those to the first token."""

    tokens: int
    seconds: float
    first: float

    @property
    def tokens_a_second(self) -> float:
        """Tokens of all answers a second."""
        return self.tokens / self.seconds


class BareEngine:
    """The parent's handle to the process."""

    def __init__(self, process: Helper) -> None:
        self._process = process

    def generate(self, variant: Variant, prompts: Sequence[str], max_tokens: int, parallel: int = 1) -> Generation:
        """Answer prompts greedily, `parallel` at a time."""
        request = {"variant": variant, "prompts": list(prompts), "max_tokens": max_tokens, "parallel": parallel}
        return Generation(**self._process.request(request))


@contextmanager
def bare_engine(settings: Settings) -> Iterator[BareEngine]:
    """Run the process, with its model loaded, until the end of the block."""
    with helper("bench.bare_engine", "serve", environment=environment_of(settings)) as process:
        engine = BareEngine(process)
        engine.generate("bare", ["Hello."], 1)  # it answers once the model is loaded
        yield engine


def loading_seconds(settings: Settings, variant: Variant) -> float:
    """Return the seconds that a new process takes to load the model, libraries included."""
    with helper("bench.bare_engine", variant, environment=environment_of(settings)) as process:
        return float(process.receive())


# The code below runs in the child process.


def main(task: str) -> None:
    """`serve`, or load one variant, write how long it took, and exit."""
    settings = load_settings()
    if task == "serve":
        serve(settings)
        return
    began = time.monotonic()
    loaded = load_bare(settings) if task == "bare" else load_wrapped(settings)
    write_line(time.monotonic() - began)
    os._exit(0 if loaded else 1)  # Python's own exit would wait for llama.cpp's threads


def load_wrapped(settings: Settings) -> Any:
    """Load the model as a worker does."""
    from pipelines.inference.registry import load_engine

    return load_engine(settings)


def load_bare(settings: Settings) -> Any:
    """Load the model with the least code that gives as many slots and threads."""
    import xllamacpp

    from pipelines.inference.llamacpp.context_size import context_of
    from pipelines.inference.llamacpp.gguf_files import engine_file
    from pipelines.inference.machine import usable_cores

    params = xllamacpp.CommonParams()
    params.model.path = str(engine_file(settings))
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * context_of(settings)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = usable_cores()
    params.verbosity = -1
    return xllamacpp.Server(params)


def serve(settings: Settings) -> None:
    """Answer lines until the end of the input."""
    engine = load_wrapped(settings)
    answers: dict[str, Answer] = {
        "bare": lambda prompt, max_tokens: answer_bare(engine._server, prompt, max_tokens),
        "wrapped": lambda prompt, max_tokens: answer_wrapped(engine, prompt, max_tokens),
    }
    for line in sys.stdin.buffer:
        request = orjson.loads(line)
        answer = answers[request["variant"]]
        write_line(asdict(generate_all(answer, request["prompts"], request["max_tokens"], request["parallel"])))


#: Answers a prompt with at most so many tokens; returns their number, and the seconds to the first text.
Answer = Callable[[str, int], tuple[int, float]]


def generate_all(answer: Answer, prompts: Sequence[str], max_tokens: int, parallel: int) -> Generation:
    """Answer all prompts, `parallel` at a time."""
    remaining, answered = iter(prompts), list[tuple[int, float]]()

    def run() -> None:
        for prompt in remaining:
            answered.append(answer(prompt, max_tokens))

    threads = [threading.Thread(target=run) for _ in range(parallel)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    return Generation(sum(tokens for tokens, _ in answered), seconds, min(first for _, first in answered))


def answer_bare(server: Any, prompt: str, max_tokens: int) -> tuple[int, float]:
    """Answer a prompt with llama.cpp's own server."""
    chunks: list[bytes] = []
    first: list[float] = []
    began = time.monotonic()

    def on_chunk(chunk: bytes) -> bool:
        if not first and b'"content":"' in chunk:
            first.append(time.monotonic() - began)
        chunks.append(chunk)
        return False

    request = {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "temperature": 0,
               "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    server.handle_chat_completions(orjson.dumps(request), on_chunk)
    return orjson.loads(chunks[-1])["usage"]["completion_tokens"], first[0]


def answer_wrapped(engine: Any, prompt: str, max_tokens: int) -> tuple[int, float]:
    """Answer a prompt through our Engine."""
    from pipelines.inference.engine import Message, Sampling, Token

    began = time.monotonic()
    first, tokens = 0.0, 0
    sampling = Sampling(max_tokens, temperature=0)
    for item in engine.generate([Message("user", prompt)], prefix="", sampling=sampling, cancelled=lambda: False):
        if isinstance(item, Token):
            first = first or time.monotonic() - began
            tokens += item.count
    return tokens, first


if __name__ == "__main__":
    main(sys.argv[1])

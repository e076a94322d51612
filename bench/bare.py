"""The engine without the platform, in a process of its own: what the platform's figures are compared with.

The process loads the model as a worker does, with the same slots and threads. `bare` calls llama.cpp's
`handle_chat_completions` with callbacks; `wrapped` goes through our `Engine`, on the same server. It answers one JSON
line for each that it is given, and does nothing in between.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import orjson

from bench.stack import environment
from models.platform.settings import Settings, load_settings
from ops.process import launcher_command

How = Literal["bare", "wrapped"]


@dataclass(frozen=True, slots=True)
class Said:
    """Some answers, given at once: all of their tokens, the seconds that they took, and the first token's."""

    tokens: int
    seconds: float
    first: float

    @property
    def tokens_a_second(self) -> float:
        """Tokens of all answers a second."""
        return self.tokens / self.seconds


class BareEngine:
    """The process, seen from here."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def say(self, how: How, prompts: Sequence[str], max_tokens: int, at_once: int = 1) -> Said:
        """Answer prompts, so many at once, greedily."""
        asked = {"how": how, "prompts": list(prompts), "max_tokens": max_tokens, "at_once": at_once}
        return Said(**self.ask(asked))

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One line for one line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(asked) + b"\n")
        self._process.stdin.flush()
        return cast(dict[str, Any], orjson.loads(self._process.stdout.readline()))


@contextmanager
def bare_engine(settings: Settings) -> Iterator[BareEngine]:
    """The process, with its model loaded."""
    process = start(settings, "serve")
    try:
        engine = BareEngine(process)
        engine.say("bare", ["Hello."], 1)  # it answers once the model is loaded
        yield engine
    finally:
        process.kill()
        process.communicate()


def loading_seconds(settings: Settings, how: How) -> float:
    """Seconds that a fresh process takes to load the model, libraries included."""
    with start(settings, how) as process:
        try:
            answer, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    return float(answer)


def start(settings: Settings, task: str) -> "subprocess.Popen[bytes]":
    """This module as a child that dies with this process."""
    return subprocess.Popen(
        launcher_command([sys.executable, "-m", "bench.bare", task], 9),  # type: ignore[arg-type]
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(settings),
        start_new_session=True,
    )


# From here on: inside the process.


def main(task: str) -> None:
    """`serve`, or load one way, tell how long it took, and leave."""
    settings = load_settings()
    if task == "serve":
        serve(settings)
        return
    began = time.perf_counter()
    loaded = load_bare(settings) if task == "bare" else load_wrapped(settings)
    print(time.perf_counter() - began, flush=True)
    os._exit(0 if loaded else 1)  # Python's own end would wait for llama.cpp's threads


def load_wrapped(settings: Settings) -> Any:
    """As a worker does."""
    from pipelines.inference.loading import load_engine

    return load_engine(settings)


def load_bare(settings: Settings) -> Any:
    """What anybody would write to get as many slots and threads."""
    import xllamacpp

    from pipelines.inference.files import engine_file
    from pipelines.inference.machine import usable_cores

    params = xllamacpp.CommonParams()
    params.model.path = str(engine_file(settings))
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = usable_cores()
    params.verbosity = -1
    return xllamacpp.Server(params)


def serve(settings: Settings) -> None:
    """Answer lines until there are no more."""
    engine = load_wrapped(settings)
    answers = {"bare": lambda *asked: answer_bare(engine._server, *asked),
               "wrapped": lambda *asked: answer_wrapped(engine, *asked)}  # fmt: skip
    for line in sys.stdin.buffer:
        asked = orjson.loads(line)
        said = at_once(answers[asked["how"]], asked["prompts"], asked["max_tokens"], asked["at_once"])
        print(orjson.dumps(asdict(said)).decode(), flush=True)


Answer = Callable[[str, int], tuple[int, float]]


def at_once(answer: Answer, prompts: Sequence[str], max_tokens: int, threads: int) -> Said:
    """Answer all prompts, so many at once."""
    left, answered = iter(prompts), list[tuple[int, float]]()

    def run() -> None:
        for prompt in left:
            answered.append(answer(prompt, max_tokens))

    running = [threading.Thread(target=run) for _ in range(threads)]
    began = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    seconds = time.perf_counter() - began
    return Said(sum(tokens for tokens, _ in answered), seconds, min(first for _, first in answered))


def answer_bare(server: Any, prompt: str, max_tokens: int) -> tuple[int, float]:
    """Tokens of an answer, and seconds to its first text."""
    chunks: list[bytes] = []
    first: list[float] = []
    began = time.perf_counter()

    def heard(chunk: bytes) -> bool:
        if not first and b'"content":"' in chunk:
            first.append(time.perf_counter() - began)
        chunks.append(chunk)
        return False

    request = {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "temperature": 0,
               "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    server.handle_chat_completions(orjson.dumps(request), heard)
    return orjson.loads(chunks[-1])["usage"]["completion_tokens"], first[0]


def answer_wrapped(engine: Any, prompt: str, max_tokens: int) -> tuple[int, float]:
    """The same through our Engine."""
    from pipelines.inference.engine import Message, Sampling, Token

    began = time.perf_counter()
    first, tokens = 0.0, 0
    sampling = Sampling(max_tokens, temperature=0)
    for item in engine.generate([Message("user", prompt)], prefix="", sampling=sampling, cancelled=lambda: False):
        if isinstance(item, Token):
            first = first or time.perf_counter() - began
            tokens += item.count
    return tokens, first


if __name__ == "__main__":
    main(sys.argv[1])

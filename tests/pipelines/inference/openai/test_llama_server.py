"""The engine `openai` gets the same from llama.cpp over HTTP as the engine `llamacpp` does in the process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos.proxy import Links
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.inference.engine import PLAIN_TEXT, Finish, Message, OutputFormat, PromptRead, Sampling, Token
from pipelines.inference.llamacpp.engine import LlamaCppEngine
from pipelines.inference.openai.engine import OpenAIEngine
from tests.pipelines.inference.openai.generation import engine_of

PROMPT = [Message("system", "Be brief."), Message("user", "Name three rivers of Europe.")]


@pytest.fixture
def engine(llamacpp_engine: LlamaCppEngine) -> LlamaCppEngine:
    return llamacpp_engine


@pytest.fixture
def remote_engine(engine: LlamaCppEngine) -> Iterator[OpenAIEngine]:
    yield from connected(engine)


@pytest.fixture
def continuing_engine(engine: LlamaCppEngine) -> Iterator[OpenAIEngine]:
    yield from connected(engine, continues=True)


def connected(engine: LlamaCppEngine, *, continues: bool = False) -> Iterator[OpenAIEngine]:
    """Yield an engine that reaches the server of llama.cpp over TCP."""
    key = engine._loopback.headers["Authorization"].removeprefix("Bearer ")
    with Links() as links:
        link = links.open("llama-server", Path(engine._loopback.path))
        upstream = Upstream("local", f"http://127.0.0.1:{link.port}/v1", (engine.name,), key, continues=continues)
        remote = engine_of(Settings(engine="openai", upstreams=(upstream,)))
        yield remote
        remote.close()


def answer(
    engine: LlamaCppEngine | OpenAIEngine, output_format: OutputFormat = PLAIN_TEXT, max_tokens: int = 24
) -> tuple[str, Finish]:
    sampling = Sampling(max_tokens, temperature=0)
    *outputs, finish = engine.generate(
        PROMPT, prefix="", sampling=sampling, cancelled=lambda: False, output_format=output_format
    )
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(
        output.count for output in outputs if not isinstance(output, Finish | PromptRead)
    )
    text = "".join(output.text for output in outputs if isinstance(output, Token))
    return text, finish


def test_both_engines_generate_and_count_the_same(engine: LlamaCppEngine, remote_engine: OpenAIEngine) -> None:
    local, remote = answer(engine), answer(remote_engine)
    assert remote[0] == local[0]
    assert (remote[1].reason, remote[1].prompt_tokens) == (local[1].reason, local[1].prompt_tokens)
    assert remote[1].generated_tokens == local[1].generated_tokens
    assert abs(remote_engine.count(PROMPT) - engine.count(PROMPT)) < engine.count(PROMPT)
    remote_engine.close()


def test_llama_server_continues_a_partial_answer(engine: LlamaCppEngine, continuing_engine: OpenAIEngine) -> None:
    """Greedy, it goes on exactly as it would have."""
    text, finish = answer(continuing_engine)
    begun = text[: len(text) // 2]
    # Given a beginning that ends with a whole word, as tokens may not be cut elsewhere
    begun = begun[: begun.rindex(" ")]
    sampling = Sampling(finish.generated_tokens, temperature=0)

    *outputs, end = continuing_engine.generate(PROMPT, prefix=begun, sampling=sampling, cancelled=lambda: False)

    rest = "".join(output.text for output in outputs if isinstance(output, Token))
    assert (begun + rest).startswith(text)
    assert isinstance(end, Finish)
    assert abs(end.prompt_tokens - finish.prompt_tokens) <= 4  # the continued text is no part of the prompt


def test_a_schema_is_enforced(remote_engine: OpenAIEngine) -> None:
    schema = {"type": "object", "properties": {"river": {"enum": ["Rhine"]}}, "required": ["river"]}
    text, _ = answer(remote_engine, OutputFormat(schema=schema), max_tokens=30)
    assert text.replace(" ", "").replace("\n", "") == '{"river":"Rhine"}'
    remote_engine.close()


def test_closing_frees_the_slot_and_a_long_prompt_is_rejected(
    engine: LlamaCppEngine, remote_engine: OpenAIEngine
) -> None:
    for _ in range(2 * engine.slots):
        items = remote_engine.generate(PROMPT, prefix="", sampling=Sampling(400), cancelled=lambda: False)
        assert isinstance(next(items), Token)
        items.close()  # type: ignore[attr-defined]
    assert answer(remote_engine)[1].generated_tokens == 24
    with pytest.raises(PermanentFailure) as caught:
        list(remote_engine.generate([Message("user", "river " * 2000)], prefix="", sampling=Sampling(5),
                             cancelled=lambda: False))  # fmt: skip
    assert caught.value.code == "context_length_exceeded"
    remote_engine.close()

"""Given a real llama-server, the one that our own engine has in the process, then over HTTP it says the same."""

import pytest

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.inference.engine import PLAIN_TEXT, Finish, Message, OutputFormat, Sampling, Token
from pipelines.inference.llamacpp.engine import LlamaCppEngine
from pipelines.inference.openai.engine import OpenAIEngine

PROMPT = [Message("system", "Be brief."), Message("user", "Name three rivers of Europe.")]


@pytest.fixture
def hosted(engine: LlamaCppEngine) -> OpenAIEngine:
    key = engine._loopback.headers["Authorization"].removeprefix("Bearer ")
    url = f"http://{engine._loopback.host}/v1"
    return OpenAIEngine(Settings(engine="openai", upstreams=(Upstream("local", url, (engine.name,), key),)))


def answer(
    engine: LlamaCppEngine | OpenAIEngine, output_format: OutputFormat = PLAIN_TEXT, most: int = 24
) -> tuple[str, Finish]:
    sampling = Sampling(most, temperature=0)
    *told, finish = engine.generate(
        PROMPT, prefix="", sampling=sampling, cancelled=lambda: False, output_format=output_format
    )
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(piece.count for piece in told if not isinstance(piece, Finish))
    text = "".join(piece.text for piece in told if isinstance(piece, Token))
    return text, finish


def test_the_same_is_said_and_counted(engine: LlamaCppEngine, hosted: OpenAIEngine) -> None:
    ours, theirs = answer(engine), answer(hosted)
    assert theirs[0] == ours[0]
    assert (theirs[1].reason, theirs[1].prompt_tokens) == (ours[1].reason, ours[1].prompt_tokens)
    assert theirs[1].generated_tokens == ours[1].generated_tokens
    assert abs(hosted.count(PROMPT) - engine.count(PROMPT)) < engine.count(PROMPT)
    hosted.close()


def test_json_by_a_schema_comes_through(hosted: OpenAIEngine) -> None:
    schema = {"type": "object", "properties": {"river": {"enum": ["Rhine"]}}, "required": ["river"]}
    text, _ = answer(hosted, OutputFormat(schema=schema), most=30)
    assert text.replace(" ", "").replace("\n", "") == '{"river":"Rhine"}'
    hosted.close()


def test_a_stop_frees_its_slot_and_too_long_a_prompt_is_told(engine: LlamaCppEngine, hosted: OpenAIEngine) -> None:
    for _ in range(2 * engine.slots):
        items = hosted.generate(PROMPT, prefix="", sampling=Sampling(400), cancelled=lambda: False)
        assert isinstance(next(items), Token)
        items.close()  # type: ignore[attr-defined]
    assert answer(hosted)[1].generated_tokens == 24
    with pytest.raises(PermanentFailure) as caught:
        list(hosted.generate([Message("user", "river " * 2000)], prefix="", sampling=Sampling(5),
                             cancelled=lambda: False))  # fmt: skip
    assert caught.value.code == "context_length_exceeded"
    hosted.close()

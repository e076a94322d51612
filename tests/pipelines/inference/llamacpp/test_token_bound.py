"""A prompt that cannot fit is recognised without counting it, and the bound is never above the count."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.inference.context import count_tokens, fit_messages
from pipelines.inference.engine import Message, OutputFormat, Tool
from pipelines.inference.llamacpp import token_bound
from pipelines.inference.llamacpp.engine import LlamaCppEngine, load_llamacpp
from pipelines.inference.llamacpp.gguf_files import engine_file
from pipelines.inference.llamacpp.gguf_metadata import read_metadata
from pipelines.inference.llamacpp.token_bound import LongestTokens, TokenBound

TWO_MEGABYTES = 1_900_000

#: Runs for which vocabularies have long tokens, and ordinary text.
RUNS = st.builds(
    lambda text, times: text * times, st.sampled_from([" ", "#", "=", "-", "\n ", "a", "the "]), st.integers(1, 200)
)
TEXTS = st.lists(RUNS | st.text(max_size=40), max_size=6).map("".join)


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCppEngine]:
    engine = load_llamacpp(Settings(slots=1, context=512))
    yield engine
    engine.close()


class Template:
    """Answers like llama.cpp with a template; `render(role, content)` writes a message, None rejects it."""

    def __init__(self, render) -> None:
        self.render = render

    def request(self, _method: str, _path: str, body) -> dict[str, object]:
        parts = [self.render(message["role"], message["content"]) for message in body["messages"]]
        return {"error": {"message": "no"}} if None in parts else {"prompt": "".join(parts)}


def bound_with(render) -> TokenBound:
    bound = TokenBound(Path("unused"), Template(render))
    bound._longest = LongestTokens((4, 4, 4))
    return bound


def test_two_megabytes_are_refused_without_counting_them(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "count", lambda *_: pytest.fail("the prompt is counted"))

    for text in (" " * TWO_MEGABYTES, "x" * TWO_MEGABYTES, "\N{CAT}" * 500_000, "word " * 400_000):
        for role in ("system", "user", "assistant"):
            messages = [Message(role, text), Message("user", "hi")]
            for refuse in (fit_messages, lambda *arguments: count_tokens(*arguments[:2])):
                with pytest.raises(PermanentFailure) as error:
                    refuse(engine, [*messages[:1], Message("assistant", "hi")] if role == "user" else messages[:1], 64)
                assert error.value.code == "context_length_exceeded"


def test_long_tools_are_refused_without_counting_them(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "count", lambda *_: pytest.fail("the prompt is counted"))
    tools = OutputFormat(tools=(Tool("f", "x" * TWO_MEGABYTES, {}),))

    with pytest.raises(PermanentFailure):
        fit_messages(engine, [Message("user", "hi")], 64, tools)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.sampled_from(["system", "user", "assistant"]))
def test_the_bound_is_never_above_the_count(engine: LlamaCppEngine, text: str, role) -> None:
    short, token_bound.SHORT = token_bound.SHORT, 0
    try:
        prompt = [Message(role, text), Message("user", text)]
        assert engine.min_tokens(prompt) <= engine.count(prompt)
    finally:
        token_bound.SHORT = short


def test_the_longest_tokens_are_those_of_the_vocabulary() -> None:
    tokens = [b"a", b" ############", b" abcdefgh", b"\n        ", "\N{CAT}".encode() * 2]

    assert LongestTokens.of(tokens).lengths == (13, 12, 8)


def test_a_bound_counts_all_bytes_and_letters_alone() -> None:
    longest = LongestTokens((80, 60, 20))

    assert longest.min_tokens([b" " * 800]) == 10
    assert longest.min_tokens([b"#" * 600]) == 10
    assert longest.min_tokens([b"a" * 100, b"b" * 100]) == 10


@pytest.mark.parametrize(
    ("render", "expected"),
    [
        (lambda role, content: f"<{role}>{content}", 150_000),
        (lambda role, content: f"<{role}>{content.strip()}", 100_000),
        (lambda role, content: f"<{role}>{content.upper()}", 0),
        (lambda role, content: None if role == "system" else content, 150_000),
        (lambda role, content: None, 0),
    ],
)
def test_the_bound_counts_what_the_template_keeps(render, expected: int) -> None:
    text = " " * 100_000 + "x" * 400_000 + "\n" * 100_000

    assert bound_with(render).min_tokens([{"role": "user", "content": text}]) == expected


def test_reasoning_that_a_template_may_remove_does_not_count() -> None:
    message = {"role": "assistant", "content": "<think>" + "x" * 400_000 + "</think>" + "y" * 40_000}

    assert bound_with(lambda role, content: content).min_tokens([message]) == 10_000


@pytest.mark.parametrize("vocabulary", [b"bert", b"t5", None])
def test_a_vocabulary_that_normalises_texts_has_no_bound(vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {token_bound.MODEL: vocabulary, token_bound.TOKENS: [b"a"]}
    monkeypatch.setattr(token_bound, "read_metadata", lambda *_: entries)

    assert (
        TokenBound(Path("model.gguf"), Template(lambda _, content: content)).min_tokens(
            [{"role": "user", "content": "x" * TWO_MEGABYTES}]
        )
        == 0
    )


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\xff" * 40])
def test_a_damaged_file_has_no_bound(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    bound = TokenBound(tmp_path / "model.gguf", Template(lambda _, text: text))

    assert bound.min_tokens([{"role": "user", "content": "x" * TWO_MEGABYTES}]) == 0


def test_metadata_of_the_bundled_model_is_read() -> None:
    metadata = read_metadata(engine_file(Settings()), ("general.architecture", "tokenizer.ggml.tokens", "missing"))

    assert metadata["general.architecture"] == b"llama"
    assert len(metadata["tokenizer.ggml.tokens"]) == 49_152
    assert "missing" not in metadata

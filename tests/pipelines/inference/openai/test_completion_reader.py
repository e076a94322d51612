"""Read the answers of endpoints that differ from OpenAI's."""

from collections.abc import Sequence
from typing import Any

import pytest

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import (
    PLAIN_TEXT,
    Finish,
    GeneratedCall,
    OutputFormat,
    ReasoningToken,
    Token,
    TokenLogprob,
    Tool,
)
from pipelines.inference.openai.completion_reader import CompletionReader
from tests.pipelines.inference.openai.endpoint import DONE, chunk

WEATHER = Tool("weather", "", {"type": "object", "properties": {}})


def read(chunks: Sequence[bytes], output_format: OutputFormat = PLAIN_TEXT) -> tuple[str, list[GeneratedCall], Finish]:
    """Return the text, the calls and the end of an answer."""
    reader = CompletionReader(output_format)
    tokens = [token for line in chunks for token in reader.add(line.removeprefix(b"data:").strip())]
    *outputs, finish = [*tokens, *reader.finish(5)]
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(output.count for output in outputs if not isinstance(output, Finish))
    text = "".join(output.text for output in outputs if isinstance(output, Token))
    return text, [output for output in outputs if isinstance(output, GeneratedCall)], finish


def call_part(index: int | None, id_: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    part = {"index": index, "id": id_, "type": "function", "function": function}
    return {"tool_calls": [{key: value for key, value in part.items() if value is not None}]}


@pytest.mark.parametrize(
    "parts",
    [
        [(0, "c1", "weather", '{"x":1}'), (0, "c2", "weather", '{"x":2}')],
        [(None, "c1", "weather", '{"x":1}'), (None, "c2", "weather", '{"x":2}')],
        [(None, None, "weather", '{"x":1}'), (None, None, "weather", '{"x":2}')],
        [(None, "c1", "weather", '{"x"'), (None, None, None, ":1}"), (None, "c2", "weather", '{"x":2}')],
        [(0, "c1", "weather", {"x": 1}), (1, "c2", "weather", {"x": 2})],
        [(0, "c1", "weather", '{"x":'), (1, "c2", "weather", '{"x":'), (0, None, None, "1}"), (1, "", "", "2}")],
        [(0, "c1", "weather", '{"x":'), (0, "c1", "weather", "1}"), (1, "c2", "weather", '{"x":2}')],
    ],
    ids=["shared index", "no index", "no index or id", "id once", "objects", "interleaved", "id in each part"],
)
def test_calls_are_told_apart_however_an_endpoint_numbers_them(
    parts: list[tuple[int | None, str | None, str | None, Any]],
) -> None:
    calls = read([*(chunk(call_part(*part)) for part in parts), chunk({}, "tool_calls")], OutputFormat((WEATHER,)))[1]

    assert [(call.name, call.arguments) for call in calls] == [("weather", '{"x":1}'), ("weather", '{"x":2}')]


@pytest.mark.parametrize("output_format", [OutputFormat((WEATHER,), "required"), OutputFormat(schema={})])
def test_an_answer_that_violates_the_output_format_is_not_generated_again(output_format: OutputFormat) -> None:
    with pytest.raises(PermanentFailure, match="was required") as caught:
        read([chunk({"content": "in words"}), chunk({}, "stop")], output_format)
    assert caught.value.code == "invalid_model_output"


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([rb'"A\ud83d"', rb'"\ude00B"'], "A😀B"),
        ([rb'"A\ud83d"', rb'"B"'], "A\ufffdB"),
        ([rb'"A\ud83d"', rb'""', rb'"\ude00"'], "A😀"),
        ([rb'"\ude00B"'], "\ufffdB"),
        ([rb'"A\ud83d"'], "A\ufffd"),
        ([b'"A\xff"'], "A\ufffd"),
    ],
)
def test_halves_of_characters_are_joined_across_chunks(pieces: list[bytes], text: str) -> None:
    """The text, and the arguments of a call, whose parts are joined as a whole."""
    contents = [b'data: {"choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % piece for piece in pieces]
    assert read([*contents, chunk({}, "stop")])[0] == text

    call = b'{"index":0,"function":{"name":"weather","arguments":%b}}'
    parts = [b'data: {"choices":[{"index":0,"delta":{"tool_calls":[%b]}}]}' % (call % piece) for piece in pieces]
    assert read([*parts, chunk({}, "tool_calls")], OutputFormat((WEATHER,)))[1][0].arguments == text


@pytest.mark.parametrize(
    ("chunks", "text", "reason"),
    [
        ([chunk({"content": "a"}), chunk({}, "content_filter"), DONE], "a", "content_filter"),
        ([chunk({"refusal": "I cannot"}), chunk({}, "stop"), DONE], "I cannot", "stop"),
        ([chunk({"content": [{"type": "text", "text": "a"}]}), chunk({}, "stop"), DONE], "a", "stop"),
        ([chunk({"content": "a"}, "eos"), DONE], "a", "stop"),
        ([chunk({"content": "a"}), DONE], "a", "stop"),
        ([chunk({"content": "a"}, "stop")], "a", "stop"),
        ([b'data: {"choices": null}', chunk({"content": "a"}, "stop")], "a", "stop"),
    ],
    ids=["filter", "refusal", "parts", "other reason", "no reason", "no end marker", "no choices"],
)
def test_answers_of_endpoints_that_differ_from_openai_are_read(chunks: list[bytes], text: str, reason: str) -> None:
    got, _, finish = read(chunks)

    assert (got, finish.reason) == (text, reason)


def test_a_rejection_inside_a_stream_is_a_permanent_failure() -> None:
    rejection = b'data: {"error": {"code": 400, "message": "maximum context length is 900"}}'
    with pytest.raises(PermanentFailure) as caught:
        read([rejection])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_under_the_names_that_endpoints_give_it(name: str) -> None:
    # Given vLLM, llama-server and DeepSeek, or OpenRouter
    reader = CompletionReader(PLAIN_TEXT)
    chunks = [chunk({name: "Let "}), chunk({name: "me"}), chunk({"content": "Yes", name: None}), chunk({}, "stop")]
    details = b'{"prompt_tokens":5,"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":7}}'
    usage = b'data: {"choices":[],"usage":%b}' % details
    tokens = [token for line in [*chunks, usage] for token in reader.add(line.removeprefix(b"data:").strip())]
    # Then it is apart from the text
    assert tokens == [ReasoningToken("Let ", 1), ReasoningToken("me", 1), Token("Yes", 1)]
    # And tokens of reasoning that no chunk had are counted as such
    rest, finish = reader.finish(5)
    assert rest == Token("", 6)
    assert isinstance(finish, Finish)
    assert (finish.generated_tokens, finish.hidden_reasoning) == (9, 5)


def test_log_probabilities_belong_to_the_text_of_their_chunk() -> None:
    reader = CompletionReader(PLAIN_TEXT)
    entry = b'{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1,"bytes":[98]}]}'
    data = b'{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[%b]}}]}' % entry
    assert reader.add(data) == [Token("a", 1, (TokenLogprob("a", -0.5, top=(TokenLogprob("b", -1.0),)),))]

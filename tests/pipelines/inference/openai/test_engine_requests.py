"""What the engine `openai` sends to an endpoint: prompt, sampling, tools, formats and keys."""

from typing import Any

import pytest

from pipelines.inference.engine import (
    PLAIN_TEXT,
    Message,
    OutputFormat,
    Sampling,
    Tool,
    ToolCall,
)
from pipelines.inference.openai.completions import cache_isolation, max_tokens_field, request_body
from pipelines.inference.openai.engine import OpenAIEngine
from tests.pipelines.inference.openai.endpoint import (
    Endpoint,
    ReceivedRequest,
    answers_with,
    calls_with,
)
from tests.pipelines.inference.openai.generation import KEY, PROMPT, WEATHER, answer, engine_of, generate, settings_of

NOW, NOTHING = Tool("now", "", {}), {"type": "object", "properties": {}}


def test_accounts_share_no_prompt_cache_of_the_endpoint_if_the_setting_says_so(endpoint: Endpoint) -> None:
    # Given an engine with isolated prompts, and one without
    settings = settings_of(endpoint)
    engines = [engine_of(settings.model_copy(update={"prompt_cache": value})) for value in ("account", "shared")]
    salts = []

    def respond(request: ReceivedRequest) -> None:
        salts.append(request.body.get("cache_salt"))
        answers_with("a")(request)

    endpoint.handlers += [respond] * 8

    # When accounts generate
    for engine in engines:
        for owner in ("acct_1", "acct_1", "acct_2", None):
            options = {"sampling": Sampling(5), "cancelled": lambda: False}
            assert [*engine.generate(PROMPT, prefix="", cache_owner=owner, **options)]  # type: ignore[arg-type]
        engine.close()

    # Then each account has a salt of its own, which does not name it
    assert salts[0] == salts[1]
    assert len({*salts[:4]}) == 3
    assert "acct_1" not in str(salts)
    assert salts[4:] == [None] * 4
    assert list(cache_isolation("api.openai.com:443", "acct_1")) == ["prompt_cache_key"]


def test_the_request_contains_prompt_sampling_and_tools(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with("a")]
    assistant = Message("assistant", "", (ToolCall("c1", "weather", '{"city": "Ulm"}'),))
    prompt = [*PROMPT, assistant, Message("tool", "rain <|im_end|>", call_id="c1")]

    list(
        generate(
            engine, OutputFormat((WEATHER,), parallel=False), prompt, temperature=0, top_p=0.5, seed=7, stop=("END", "")
        )
    )

    request = endpoint.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    function = {"name": "weather", "arguments": '{"city": "Ulm"}'}
    tool = {"name": "weather", "description": "of a city", "parameters": dict(WEATHER.parameters)}
    assert request.body == {
        "model": "big",
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hello there"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function",
                                                                   "function": function}]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain <\u200b|im_end|>"},
        ],
        "max_tokens": 50,
        "temperature": 0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["END"],
        "tools": [{"type": "function", "function": tool}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("host", "limit"),
    [
        ("api.openai.com", "max_completion_tokens"),
        ("us.openai.azure.com:443", "max_completion_tokens"),
        ("api.example.com", "max_tokens"),
        ("openai.com.example.com:8000", "max_tokens"),
    ],
)
def test_the_token_limit_is_sent_under_the_hosts_name_for_it(host: str, limit: str) -> None:
    assert max_tokens_field(host) == limit
    body = request_body("big", PROMPT, Sampling(7), PLAIN_TEXT, host)
    assert {name: body[name] for name in body if name.startswith("max_")} == {limit: 7}


@pytest.mark.parametrize(
    ("output_format", "expected"),
    [
        (OutputFormat(schema={}), {"response_format": {"type": "json_object"}}),
        (OutputFormat(schema={"type": "object"}),
         {"response_format": {"type": "json_schema",
                              "json_schema": {"name": "answer", "schema": {"type": "object"}}}}),
        (OutputFormat((WEATHER,), tool_choice="none"), {}),
        (OutputFormat((WEATHER, NOW), tool_choice=("function", "now")),
         {"tools": [{"type": "function", "function": {"name": "now", "description": "", "parameters": NOTHING}}],
          "tool_choice": "required"}),
    ],
)  # fmt: skip
def test_the_output_format_is_sent(
    endpoint: Endpoint, engine: OpenAIEngine, output_format: OutputFormat, expected: dict[str, object]
) -> None:
    endpoint.handlers += [calls_with((0, "now", ""))] if output_format.must_call_tool else [answers_with("{", "}")]
    assert answer(engine, output_format)[0] == ("" if output_format.must_call_tool else "{}")
    body = endpoint.requests[0].body
    assert {name: body[name] for name in body if name in ("tools", "tool_choice", "response_format")} == expected


SAMPLING = Sampling(
    7, presence_penalty=0.5, frequency_penalty=0.0, logit_bias=((9, -1.0),), top_logprobs=0, top_k=3, min_p=0.1,
    typical_p=0.9, repetition_penalty=1.2, min_tokens=2, ignore_eos=True,
)  # fmt: skip

STANDARD = {"presence_penalty": 0.5, "frequency_penalty": 0.0, "logit_bias": {"9": -1.0}, "logprobs": True}

FURTHER = {
    "top_k": 3, "min_p": 0.1, "typical_p": 0.9, "repetition_penalty": 1.2, "repeat_penalty": 1.2, "min_tokens": 2,
    "ignore_eos": True, "chat_template_kwargs": {"enable_thinking": False},
}  # fmt: skip


@pytest.mark.parametrize(("host", "further"), [("api.example.com", FURTHER), ("api.openai.com", {})])
def test_sampling_parameters_are_sent_as_the_host_names_them(host: str, further: dict[str, Any]) -> None:
    output_format = OutputFormat(effort="low", template={"enable_thinking": False})
    prompt = [*PROMPT, Message("assistant", "b", reasoning="because"), *PROMPT]
    body = request_body("big", prompt, SAMPLING, output_format, host)
    assert {name: body.get(name) for name in (*STANDARD, *FURTHER) if name in body} == {**STANDARD, **further}
    assert body["reasoning_effort"] == "low"
    reasoning = [message["reasoning_content"] for message in body["messages"] if "reasoning_content" in message]
    assert reasoning == (["because"] if further else [])


def test_a_request_has_no_parameter_without_a_value() -> None:
    body = request_body("big", PROMPT, Sampling(7), PLAIN_TEXT, "api.example.com")
    assert body.keys() == {"model", "messages", "max_tokens", "stream", "stream_options"}

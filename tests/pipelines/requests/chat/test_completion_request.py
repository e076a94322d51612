"""Converting bodies of chat completions to turns: messages, parameters, and rejected parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.platform.errors import InvalidRequest, NotFound
from models.platform.settings import Settings
from pipelines.requests.chat.completion_request import CreateChatCompletion, chat_turn
from pipelines.requests.ignored_fields import validate_tolerantly
from pipelines.requests.serving import Serving
from pipelines.requests.validation import validate

SETTINGS = Serving.of(Settings(engine="scripted"))
HELLO = [{"role": "user", "content": "hello"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
ANSWER = {"role": "tool", "content": "x", "tool_call_id": "call_1"}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}


def turn(messages=HELLO, **parameters):
    return chat_turn(validate(CreateChatCompletion, {"model": "default", "messages": messages, **parameters}), SETTINGS)


def summarize(item):
    """Return the content of an item without generated fields."""
    match item["type"]:
        case "message":
            return item["role"], "".join(part["text"] for part in item["content"])
        case "function_call":
            return item["call_id"], item["name"], item["arguments"]
        case _:
            return item["call_id"], item["output"]


def test_every_role_becomes_an_input_item():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
        {"role": "user", "content": "Look!"},
        {"role": "assistant", "content": "I look.", "refusal": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
        {"role": "tool", "tool_call_id": "call_2", "content": "a cat"},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "a dog"}], "name": "look"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No more."}], "audio": None},
        {"role": "assistant", "content": None, "refusal": "Really not.", "function_call": None, "annotations": []},
        {"role": "user", "content": "Well."},
    ]

    assert [summarize(item) for item in turn(messages).input] == [
        ("system", "Be brief."),
        ("developer", "Be kind."),
        ("user", "Look!"),
        ("assistant", "I look."),
        ("call_1", "look", "{}"),
        ("call_2", "look", "{}"),
        ("call_2", "a cat"),
        ("call_1", "a dog"),
        ("assistant", "No more."),
        ("assistant", "Really not."),
        ("user", "Well."),
    ]


def test_names_of_participants_are_accepted_on_every_message():
    messages = [
        {"role": "system", "name": "rules", "content": "Be brief."},
        {"role": "user", "name": "Ann", "content": "hi"},
        {"role": "assistant", "name": "researcher", "content": "yo"},
        {"role": "user", "name": "Ann Lee", "content": "go on"},
    ]

    items = turn(messages).input
    assert [summarize(item)[1] for item in items] == ["Be brief.", "hi", "yo", "go on"]
    assert [item["name"] for item in items] == ["rules", "Ann", "researcher", "Ann Lee"]


def test_an_unknown_model_is_not_found():
    with pytest.raises(NotFound) as caught:
        turn(model="gpt-99")

    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_too_many_stop_sequences_are_rejected_with_the_number_allowed():
    with pytest.raises(InvalidRequest, match="at most 4 items"):
        turn(stop=["a", "b", "c", "d", "e"])


@given(st.lists(st.tuples(st.sampled_from(["system", "developer", "user", "assistant"]), st.text(min_size=1))))
def test_texts_are_converted_unchanged(exchanges):
    messages = [{"role": role, "content": text} for role, text in [*exchanges, ("user", "end")]]

    assert [summarize(item) for item in turn(messages).input] == [*exchanges, ("user", "end")]


def test_parameters_are_converted_to_those_of_a_turn():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    request = turn(
        max_completion_tokens=7, temperature=0.5, top_p=0.9, stop="END", seed=-1, tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "look"}}, parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": schema}},
        metadata={"k": "v"}, user="me", service_tier="flex",
    ).request  # fmt: skip

    assert (request["max_output_tokens"], request["temperature"], request["top_p"]) == (7, 0.5, 0.9)
    assert (request["stop"], request["seed"], request["store"]) == (["END"], 2**32 - 2, False)
    assert request["tools"][0]["name"] == "look"
    assert request["tools"][0]["parameters"] == {"type": "object"}
    assert request["tool_choice"] == {"type": "function", "name": "look"}
    assert request["parallel_tool_calls"] is False
    assert (request["text"]["format"]["type"], request["text"]["format"]["schema"]) == ("json_schema", schema)
    assert (request["metadata"], request["user"], request["background"]) == ({"k": "v"}, "me", False)


def test_store_and_max_tokens_are_converted():
    assert turn(store=True).request["store"] is True
    assert turn(max_tokens=9).request["max_output_tokens"] == 9


def test_allowed_tools_restrict_the_stored_tools():
    other = {"type": "function", "function": {"name": "hear"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "hear"}}]}
    request = turn(tools=[TOOL, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed}).request

    assert ([tool["name"] for tool in request["tools"]], request["tool_choice"]) == (["hear"], "required")


def test_neutral_values_of_unsupported_parameters_are_accepted():
    turn(
        n=1, logprobs=False, top_logprobs=0, logit_bias={}, presence_penalty=0, frequency_penalty=0.0,
        modalities=["text"], functions=None, function_call=None, audio=None, top_p=0,
        reasoning_effort="none", response_format={"type": "text"}, stream=False, stop=None, tool_choice="none",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"n": 9}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "custom": {"name": "a b"}}]}, "tools[0].custom.name"),
        ({"functions": [{"name": "look"}, {"name": "look"}]}, "functions[1].name"),
        ({"functions": [{"name": "look"}], "function_call": {"name": "hear"}}, "function_call.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": {"type": "function", "function": {"name": "look"}}}, "tool_choice.function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_unsupported_and_invalid_parameters_are_rejected_by_name(parameters, param):
    with pytest.raises(InvalidRequest) as error:
        turn(**parameters)

    assert error.value.param == param
    assert param in error.value.message


def test_functions_are_tools_under_their_former_name():
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "a cat"},
    ]
    request = turn(messages, functions=[{"name": "look"}], function_call={"name": "look"})

    assert [summarize(item) for item in request.input[1:]] == [
        ("call_function_1", "look", "{}"),
        ("call_function_1", "a cat"),
    ]
    assert request.request["tools"][0]["name"] == "look"
    assert request.request["tool_choice"] == {"type": "function", "name": "look"}
    assert request.request["parallel_tool_calls"] is False


def test_calls_of_custom_tools_are_converted():
    tool = {"type": "custom", "custom": {"name": "note", "format": {
        "type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}}}}  # fmt: skip
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "note", "input": "aa"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "noted"},
    ]
    request = turn(messages, tools=[tool], tool_choice={"type": "custom", "custom": {"name": "note"}})

    assert [item["type"] for item in request.input] == ["message", "custom_tool_call", "custom_tool_call_output"]
    assert request.input[1]["input"] == "aa"
    assert request.request["tools"][0]["format"] == {"type": "grammar", "syntax": "regex", "definition": "a+"}
    assert request.request["tool_choice"] == {"type": "custom", "name": "note"}


@pytest.mark.parametrize(
    ("parameters", "ignored"),
    [
        ({"stream_options": {"include_usage": True}}, ["stream_options"]),
        ({"max_tokens": 5, "max_completion_tokens": 6}, ["max_tokens"]),
        ({"tools": [TOOL, {"type": "web_search"}]}, ["tools[1] (web_search)"]),
        ({"tools": [TOOL], "functions": [{"name": "look"}]}, ["functions"]),
        ({"functions": []}, []),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "function", "function": {
            "name": "look"}}]}}, "tools": [TOOL]}, []),
    ],
)  # fmt: skip
def test_parameters_without_effect_are_ignored_and_named(parameters, ignored):
    body, names = validate_tolerantly(CreateChatCompletion, {"messages": HELLO, **parameters})

    chat_turn(body, SETTINGS)
    assert names == ignored


def test_fields_that_widespread_clients_send_in_messages_are_accepted():
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "user", "id": "m1", "name": "user", "content": [part]},
        {"role": "assistant", "content": "yo", "reasoning": "…", "provider_metadata": {}},
        {"role": "user", "content": "go on", "unknown": None},
    ]

    body, ignored = validate_tolerantly(CreateChatCompletion, {"messages": messages})

    items = chat_turn(body, SETTINGS).input
    assert [item["type"] for item in items] == ["message", "reasoning", "message", "message"]
    assert {"messages[0].id", "messages[0].content[0].cache_control", "messages[2].unknown"} <= set(ignored)


@pytest.mark.parametrize(
    "fields",
    [
        "top_k", "min_p", "repetition_penalty", "repeat_penalty", "min_tokens", "best_of", "ignore_eos",
        "cache_prompt", "enable_thinking", "think", "keep_alive", "guided_json", "skip_special_tokens", "session_id",
        "chat_id", "id", "options", "prediction", "web_search_options",
    ],
)  # fmt: skip
def test_fields_of_widespread_clients_are_accepted(fields):
    values = {"options": {}, "prediction": {}, "web_search_options": {}, "ignore_eos": True, "enable_thinking": False}
    value = values.get(fields, 1)

    body, _ = validate_tolerantly(CreateChatCompletion, {"messages": HELLO, fields: value})
    assert chat_turn(body, SETTINGS).input


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "function", "content": "x", "name": "look"}], "messages[0].role"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": "x", "name": 7}], "messages[0].name"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
         "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}], "messages[0].content[0].type"),
        ([*HELLO, {"role": "tool", "content": "x", "tool_call_id": "call_1"}], "messages[1].tool_call_id"),
        ([*HELLO, {"role": "assistant", "tool_calls": [CALL]}], "messages[2].role"),
        ([{"role": "assistant", "tool_calls": [CALL]}, *HELLO], "messages[1].role"),
        ([{"role": "assistant", "tool_calls": [CALL]}, *[ANSWER] * 2], "messages[2].tool_call_id"),
        ([{"role": "assistant", "audio": {"id": "x"}}], "messages[0].audio"),
        ([{"role": "assistant", "tool_calls": [{**CALL, "id": f"call_{n}"} for n in range(501)]},
          *[{**ANSWER, "tool_call_id": f"call_{n}"} for n in range(501)]], "messages"),
    ],
)  # fmt: skip
def test_invalid_messages_are_rejected_by_parameter(messages, param):
    with pytest.raises(InvalidRequest) as error:
        turn(messages)

    assert error.value.param == param


def test_error_names_only_the_first_of_many_tool_calls_without_output():
    # Given an answer with as many tool calls as allowed, and no output of any
    calls = [{**CALL, "id": f"call_{number:03}"} for number in range(900)]
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": calls}]
    # When it is sent
    with pytest.raises(InvalidRequest) as raised:
        turn(messages)
    # Then the error names some and counts the others
    assert raised.value.message.endswith("'call_003', 'call_004' and 895 more.")
    assert len(raised.value.message) < 250

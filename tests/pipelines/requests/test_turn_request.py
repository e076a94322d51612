"""Converting request bodies to turns: parameters, items, tools and formats."""

import time

import pytest
from pydantic import ValidationError

from models.platform.errors import InvalidRequest, NotFound
from models.platform.settings import Settings
from pipelines.requests.ignored_fields import validate_tolerantly
from pipelines.requests.input_items import stored_items
from pipelines.requests.serving import Serving
from pipelines.requests.turn_request import CreateResponse, new_turn

SETTINGS = Serving.of(Settings(engine="scripted"))


def parse(**body) -> CreateResponse:
    return CreateResponse.model_validate({"input": "hello", **body})


def test_omitted_parameters_are_stored_as_defaults():
    turn = new_turn(parse(), SETTINGS)

    assert turn.request == {
        "model": "scripted", "any_model": True, "instructions": None, "background": False, "metadata": {},
        "temperature": None,
        "top_p": None, "max_output_tokens": None, "max_tool_calls": None, "user": None, "store": True, "seed": None,
        "stop": [], "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "truncation": "auto",
        "text": {"format": {"type": "text"}}, "safety_identifier": None, "prompt_cache_key": None,
        "memory": None, "context_management": None,
        "sampling_defaults": {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
    }  # fmt: skip
    assert (turn.conversation_id, turn.previous_id, turn.if_busy) == (None, None, "queue")


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_given_as_id_or_object(conversation):
    assert new_turn(parse(conversation=conversation), SETTINGS).conversation_id == "conv_1"


def test_conversation_and_previous_response_id_are_mutually_exclusive():
    with pytest.raises(InvalidRequest) as error:
        new_turn(parse(conversation="conv_1", previous_response_id="resp_1"), SETTINGS)

    assert error.value.param == "previous_response_id"


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"include": ["reasoning.encrypted_content", "of.the.future"]}, ["include"]),
        ({"service_tier": "turbo"}, ["service_tier"]),
        ({"text": {"verbosity": "chatty"}}, ["verbosity"]),
        ({"client_metadata": {}, "generate": False}, ["client_metadata", "generate"]),
        ({"tools": [{"type": "function", "name": "look", "defer_loading": True}]}, ["tools[0].defer_loading"]),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "caller": {}}]},
         ["input[0].caller"]),
    ],
)  # fmt: skip
def test_fields_without_effect_on_the_answer_are_ignored_and_named(fields, ignored):
    body, names = validate_tolerantly(CreateResponse, {"input": "hello", **fields})

    new_turn(body, SETTINGS)
    assert names == ignored


@pytest.mark.parametrize("name", [None, "default", "scripted"])
def test_the_local_model_has_an_alias(name):
    assert SETTINGS.resolve(name) == "scripted"


def test_an_unknown_model_is_rejected_with_the_available_models():
    with pytest.raises(NotFound, match=r"'gpt-4o' does not exist. Available models are: 'scripted', 'default'"):
        SETTINGS.resolve("gpt-4o")


def test_a_string_becomes_a_user_message():
    assert stored_items("hello") == [
        {"type": "message", "role": "user", "status": "completed",
         "content": [{"type": "input_text", "text": "hello"}]}]  # fmt: skip


def test_output_items_are_accepted_unchanged_as_input():
    text = {"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    function_call = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "add",
            "arguments": "{}"}  # fmt: skip
    reasoning = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "x"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "5"}]}

    items = stored_items(parse(input=[message, reasoning, function_call, output]).input)

    assert [item["type"] for item in items] == ["message", "function_call", "function_call_output"], (
        "reasoning is dropped"
    )
    assert items[0]["content"] == [text]
    assert items[1] | {"id": "fc_1"} == function_call
    assert items[2]["output"] == output["output"]
    assert not any("id" in item for item in items), "an id of the caller could be one of another account"


def test_a_refusal_becomes_text():
    (item,) = stored_items(
        parse(input=[{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]).input
    )

    assert item["content"][0]["text"] == "no"


ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
SUM = {"type": "function", "name": "sum"}


def test_allowed_tools_restrict_the_stored_tools():
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "sum"}]}

    request = new_turn(parse(tools=[ADD, SUM], tool_choice=allowed), SETTINGS).request

    assert ([tool["name"] for tool in request["tools"]], request["tool_choice"]) == (["sum"], "required")


def test_duplicate_tool_names_are_rejected():
    with pytest.raises(InvalidRequest) as error:
        new_turn(parse(tools=[ADD, ADD]), SETTINGS)

    assert error.value.param == "tools[1].name"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "banana"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/nothing"},
        {"properties": {"a": {"pattern": "("}}},
        {"anyOf": []},
        {"not": {"type": "string"}},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"properties": {str(number): {} for number in range(2000)}},
    ],
)
def test_a_schema_that_cannot_be_enforced_is_rejected(schema):
    tool = {"type": "function", "name": "f", "parameters": schema, "strict": True}
    format_ = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}

    for parameters, param in [
        ({"text": {"format": format_}}, "text.format.schema"),
        ({"tools": [tool]}, "tools[0].parameters"),
    ]:
        with pytest.raises(InvalidRequest) as error:
            new_turn(parse(**parameters), SETTINGS)
        assert (error.value.param, error.value.code) == (param, "invalid_json_schema")
        assert len(error.value.message) < 200


def test_unsupported_keywords_are_ignored_unless_the_schema_is_strict():
    format_ = {"type": "json_schema", "name": "tags", "schema": {"type": "array", "uniqueItems": True}}

    new_turn(parse(text={"format": format_}), SETTINGS)
    with pytest.raises(InvalidRequest, match="uniqueItems"):
        new_turn(parse(text={"format": {**format_, "strict": True}}), SETTINGS)


def test_an_exponentially_expanding_schema_is_checked_within_a_second():
    definitions = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(60)}
    schema = {"$defs": {**definitions, "s60": {"type": "string"}}, "$ref": "#/$defs/s0"}
    start = time.process_time()

    new_turn(parse(text={"format": {"type": "json_schema", "name": "answer", "schema": schema}}), SETTINGS)

    assert time.process_time() - start < 1


def test_a_recursive_schema_is_accepted():
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    format_ = {"type": "json_schema", "name": "t", "schema": {"$defs": {"tree": tree}, "$ref": "#/$defs/tree"}}

    assert new_turn(parse(text={"format": format_}), SETTINGS).request["text"] == {"format": format_}


def test_memory_options_are_validated():
    assert new_turn(parse(memory={"recall": False, "limit": 3}), SETTINGS).request["memory"] == {
        "recall": False, "limit": 3,
    }  # fmt: skip
    for options in ({"limit": 0}, {"limit": 21}, {"remind": True}, {"recall": "no"}):
        with pytest.raises(ValidationError):
            parse(memory=options)
    with pytest.raises(InvalidRequest) as error:
        new_turn(parse(store=False, memory={"remember": True}), SETTINGS)
    assert error.value.param == "memory.remember"


WINDOW = {"background": True, "background_options": {"completion_window": "2h", "continuation_id": "c"}}


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        (WINDOW, "2h"),
        ({**WINDOW, "service_tier": "flex"}, "2h"),
        ({"background_options": {"completion_window": "soonest"}}, None),
        ({"background_options": {}}, None),
    ],
)
def test_a_completion_window_is_part_of_the_request(fields, window):
    assert new_turn(parse(**fields), SETTINGS).request.get("completion_window") == window


@pytest.mark.parametrize(
    "fields",
    [{"background": False}, {"stream": True}, {"service_tier": "priority"}],
)
def test_a_completion_window_needs_a_background_response_that_nobody_waits_for(fields):
    with pytest.raises(InvalidRequest, match="completion_window"):
        new_turn(parse(**{**WINDOW, **fields}), SETTINGS)

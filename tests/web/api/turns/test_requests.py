"""Given a body that was parsed, when it becomes a turn, then all of it is there and nothing is made up."""

import time

import pytest
from pydantic import ValidationError

from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from web.api.turns.items import stored_items
from web.api.turns.requests import CreateResponse, resolve_model, new_turn

SETTINGS = Settings(engine="scripted")


def parsed(**body) -> CreateResponse:
    return CreateResponse.model_validate({"input": "hello", **body})


def test_what_was_left_out_is_left_to_the_engine():
    turn = new_turn(parsed(), SETTINGS)

    assert turn.request == {
        "model": "scripted", "instructions": None, "background": False, "metadata": {}, "temperature": None,
        "top_p": None, "max_output_tokens": None, "max_tool_calls": None, "user": None, "store": True, "seed": None,
        "stop": [], "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "truncation": "auto",
        "text": {"format": {"type": "text"}}, "safety_identifier": None, "prompt_cache_key": None,
        "memory": None,
    }  # fmt: skip
    assert (turn.conversation_id, turn.previous_id, turn.if_busy) == (None, None, "queue")


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_named_either_way(conversation):
    assert new_turn(parsed(conversation=conversation), SETTINGS).conversation_id == "conv_1"


def test_a_turn_goes_on_in_one_place_only():
    with pytest.raises(InvalidRequest) as refusal:
        new_turn(parsed(conversation="conv_1", previous_response_id="resp_1"), SETTINGS)

    assert refusal.value.param == "previous_response_id"


@pytest.mark.parametrize("name", [None, "default", "scripted"])
def test_the_model_answers_to_its_names(name):
    assert resolve_model(name, SETTINGS) == "scripted"


def test_other_models_are_refused_with_those_that_are_there():
    with pytest.raises(InvalidRequest, match=r"'gpt-4o' does not exist; there are 'scripted' and 'default'"):
        resolve_model("gpt-4o", SETTINGS)


def test_a_text_is_a_message_of_the_user():
    assert stored_items("hello") == [
        {"type": "message", "role": "user", "status": "completed",
         "content": [{"type": "input_text", "text": "hello"}]}]  # fmt: skip


def test_output_can_be_given_back_as_it_came():
    text = {"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    call = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "add",
            "arguments": "{}"}  # fmt: skip
    thought = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "x"}
    told = {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "5"}]}

    items = stored_items(parsed(input=[message, thought, call, told]).input)

    assert [item["type"] for item in items] == ["message", "function_call", "function_call_output"], "no thoughts"
    assert items[0]["content"] == [text]
    assert items[1] | {"id": "fc_1"} == call
    assert items[2]["output"] == told["output"]
    assert not any("id" in item for item in items), "an id of the caller's could be another account's"


def test_a_refusal_given_back_is_text():
    (item,) = stored_items(parsed(input=[{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]).input)

    assert item["content"][0]["text"] == "no"


ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
SUM = {"type": "function", "name": "sum"}


def test_of_allowed_tools_only_those_are_offered():
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "sum"}]}

    request = new_turn(parsed(tools=[ADD, SUM], tool_choice=allowed), SETTINGS).request

    assert ([tool["name"] for tool in request["tools"]], request["tool_choice"]) == (["sum"], "required")


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(InvalidRequest) as refusal:
        new_turn(parsed(tools=[ADD, ADD]), SETTINGS)

    assert refusal.value.param == "tools[1].name"


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
def test_a_schema_that_no_grammar_can_hold_is_refused(schema):
    tool = {"type": "function", "name": "f", "parameters": schema, "strict": True}
    form = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}

    for asked, param in [
        ({"text": {"format": form}}, "text.format.schema"),
        ({"tools": [tool]}, "tools[0].parameters"),
    ]:
        with pytest.raises(InvalidRequest) as refusal:
            new_turn(parsed(**asked), SETTINGS)
        assert (refusal.value.param, refusal.value.code) == (param, "invalid_json_schema")
        assert len(refusal.value.message) < 200


def test_what_a_grammar_can_not_hold_is_passed_over_where_nobody_is_strict():
    form = {"type": "json_schema", "name": "tags", "schema": {"type": "array", "uniqueItems": True}}

    new_turn(parsed(text={"format": form}), SETTINGS)
    with pytest.raises(InvalidRequest, match="uniqueItems"):
        new_turn(parsed(text={"format": {**form, "strict": True}}), SETTINGS)


def test_a_schema_that_doubles_at_each_step_costs_little():
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(60)}
    schema = {"$defs": {**steps, "s60": {"type": "string"}}, "$ref": "#/$defs/s0"}
    began = time.monotonic()

    new_turn(parsed(text={"format": {"type": "json_schema", "name": "answer", "schema": schema}}), SETTINGS)

    assert time.monotonic() - began < 1


def test_a_schema_that_goes_round_through_its_members_is_good():
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    form = {"type": "json_schema", "name": "t", "schema": {"$defs": {"tree": tree}, "$ref": "#/$defs/tree"}}

    assert new_turn(parsed(text={"format": form}), SETTINGS).request["text"] == {"format": form}


def test_what_a_turn_has_to_do_with_memories_is_bounded():
    assert new_turn(parsed(memory={"recall": False, "limit": 3}), SETTINGS).request["memory"] == {
        "recall": False, "limit": 3,
    }  # fmt: skip
    for wrong in ({"limit": 0}, {"limit": 21}, {"remind": True}, {"recall": "no"}):
        with pytest.raises(ValidationError):
            parsed(memory=wrong)
    with pytest.raises(InvalidRequest) as refusal:
        new_turn(parsed(store=False, memory={"remember": True}), SETTINGS)
    assert refusal.value.param == "memory.remember"

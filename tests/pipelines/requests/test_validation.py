"""Validation errors in OpenAI's style, which name the parameter."""

from typing import Literal

import pytest
from pydantic import Field

from models.platform.errors import InvalidRequest
from pipelines.requests.input_items import ITEM_TYPES
from pipelines.requests.turn_request import CreateResponse
from pipelines.requests.validation import RequestBody, validate


class Item(RequestBody):
    type: Literal["message"] = "message"
    content: str


class Turn(RequestBody):
    input: str | list[Item]
    temperature: float | None = Field(None, ge=0, le=2)
    metadata: dict[str, str] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("value", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": "x", "surprise": 1}, "surprise", "unknown_parameter"),
        ({"input": [{"content": 5}]}, "input[0].content", "invalid_type"),
        ({"input": [{"content": "a"}, {}]}, "input[1].content", "missing_required_parameter"),
        ({"input": [{"content": "a", "b": 1}]}, "input[0].b", "unknown_parameter"),
        ({"input": [{"content": "a", "type": "x"}]}, "input[0].type", "invalid_value"),
        ({"input": "x", "temperature": 3}, "temperature", "invalid_value"),
        ({"input": "x", "temperature": "1"}, "temperature", "invalid_type"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ],
)
def test_an_error_names_its_parameter(value, param, code):
    with pytest.raises(InvalidRequest) as error:
        validate(Turn, value)

    assert (error.value.param, error.value.code) == (param, code)
    assert f"'{param}'" in error.value.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"input": []}, "Invalid value for 'input': it should have at least 1 item, not 0."),
        ({"input": 5}, "Invalid type for 'input': it should be a string or a list of items."),
        ({"input": [5]}, "Invalid type for 'input[0]': it should be an object."),
        ({"input": [{"role": "user"}]}, "Missing required parameter: 'input[0].content'."),
        ({"input": [{"type": "picture" * 100}]}, f"Unsupported value for 'input[0].type': '{('picture' * 15)[:98]}…; "
         f"it should be one of {', '.join(map(repr, ITEM_TYPES))}."),
        ({"input": "x", "n" * 300: 1}, f"Unknown parameter: '{'n' * 99}…'."),
        ({"input": "x", "tool_choice": {"type": "function"}}, "Missing required parameter: 'tool_choice.name'."),
    ],
)  # fmt: skip
def test_an_error_in_a_union_describes_the_intended_member(value, message):
    with pytest.raises(InvalidRequest) as error:
        validate(CreateResponse, value)

    assert error.value.message == message


def test_a_valid_value_is_returned_as_a_model():
    assert validate(Turn, {"input": [{"content": "hi"}], "temperature": 1}).input == [Item(content="hi")]

"""The unmodified official client calls functions and gets structured output."""

import orjson
from openai import OpenAI
from openai.types.responses import ResponseItemList
from pydantic import BaseModel

from tests.journeys.openai_types import assert_valid, assert_valid_model
from tests.journeys.responses import ADD, TEXT
from tests.journeys.stack import ON_REDIS

pytestmark = ON_REDIS


class Sum(BaseModel):
    """A schema for structured output."""

    total: int
    steps: list[str]


def test_function_call_and_its_output(client: OpenAI):
    messages = [{"role": "user", "content": "add one and two"}]

    request = client.responses.create(model="default", input=messages, tools=[ADD], tool_choice="required")
    (call,) = request.output
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "three"}
    answer = client.responses.create(model="default", input=[*messages, *request.output, output], tools=[ADD])
    chained = client.responses.create(model="default", input=[output], tools=[ADD], previous_response_id=request.id)

    for response in (request, answer, chained):
        assert_valid_model(response)
    assert (call.type, call.name, call.status) == ("function_call", "add", "completed")
    assert (request.tool_choice, request.tools[0].name) == ("required", "add")
    assert answer.output_text == chained.output_text == TEXT
    assert answer.usage.input_tokens == chained.usage.input_tokens
    page = client.responses.input_items.with_raw_response.list(answer.id, order="asc").http_response.json()
    assert [item.type for item in assert_valid(ResponseItemList, page).data] == [
        "message", "function_call", "function_call_output"]  # fmt: skip


def test_streamed_function_call(client: OpenAI):
    events = list(
        client.responses.create(model="default", input="hello", tools=[ADD], tool_choice="required", stream=True)
    )

    for event in events:
        assert_valid_model(event)
    arguments = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    (call,) = events[-1].response.output
    assert arguments == done.arguments == call.arguments
    assert (done.item_id, done.output_index) == (call.id, 0)


def test_structured_output(client: OpenAI):
    response = client.responses.parse(model="default", input="hello", text_format=Sum)

    assert isinstance(response.output_parsed, Sum)
    assert response.text.format.type == "json_schema"
    assert_valid_model(client.responses.retrieve(response.id))
    json_response = client.responses.create(model="default", input="hello", text={"format": {"type": "json_object"}})
    assert_valid_model(json_response)
    assert isinstance(orjson.loads(json_response.output_text), dict)

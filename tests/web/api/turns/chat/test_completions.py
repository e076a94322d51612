"""`/v1/chat/completions` with OpenAI's client and a real worker, plain and streamed."""

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from bench.harness.waiting import wait_until

POOL = "inference"

TEXT = "".join(f"w{index} " for index in range(20))
HELLO = [{"role": "user", "content": "hello there"}]


# The first test needs that no worker runs: the worker starts with the first test that uses it.


def test_a_stream_of_a_cancelled_turn_ends_with_an_error(user):
    with user.client.stream(
        "POST", "/v1/chat/completions", json={"messages": HELLO, "stream": True},
        headers={"authorization": f"Bearer {user.token}"},
    ) as answer:  # fmt: skip
        response_id = answer.headers["x-sangha-response-id"]
        assert user.request("POST", f"/v1/responses/{response_id}/cancel").json()["status"] == "cancelled"
        frames = answer.read().decode()

    assert '"code":"cancelled"' in frames
    assert "[DONE]" not in frames


def test_a_plain_completion_has_openais_shape_and_is_deleted(client, user):
    answer = client.chat.completions.with_raw_response.create(model="default", messages=HELLO, temperature=0)
    completion = answer.parse()

    TypeAdapter(ChatCompletion).validate_python(answer.http_response.json(), strict=True)
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (2, 20)
    assert completion.id.removeprefix("chatcmpl-") == answer.headers["x-sangha-response-id"].removeprefix("resp_")
    path = f"/v1/responses/{answer.headers['x-sangha-response-id']}"
    wait_until(lambda: user.request("GET", path).status_code == 404)


def test_a_streamed_completion_has_openais_chunks_and_is_deleted(client, user):
    chunks = list(client.chat.completions.create(
        model="default", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip

    for chunk in chunks:
        TypeAdapter(ChatCompletionChunk).validate_python(chunk.model_dump(), strict=True)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == TEXT
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 20)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    wait_until(lambda: user.jobs() == [])


def test_the_clients_stream_helper_accumulates_the_completion(client):
    with client.chat.completions.stream(model="default", messages=HELLO) as stream:
        kinds = {event.type for event in stream}
        completion = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert completion.choices[0].message.content == TEXT


def test_max_tokens_limits_the_answer(client):
    completion = client.chat.completions.create(model="default", messages=HELLO, max_tokens=3)

    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("w0 w1 w2 ", "length")


def test_a_stored_completion_is_a_response_that_can_be_continued(client):
    answer = client.chat.completions.with_raw_response.create(model="default", messages=HELLO, store=True)
    response = client.responses.retrieve(answer.headers["x-sangha-response-id"])

    assert (response.output_text, response.status) == (TEXT, "completed")
    assert client.responses.create(model="default", input="and?", previous_response_id=response.id).output_text == TEXT


def test_a_repeated_idempotency_key_returns_the_same_completion(client, user):
    headers = {"Idempotency-Key": "the-same"}
    first, second = (
        client.chat.completions.create(model="default", messages=HELLO, extra_headers=headers) for _ in range(2)
    )

    assert first == second
    assert len(user.jobs()) == 1


def test_messages_that_exceed_the_context_are_a_400(client):
    long_messages = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError) as plain:
        client.chat.completions.create(model="default", messages=long_messages)
    with pytest.raises(openai.APIError) as streamed:
        list(client.chat.completions.create(model="default", messages=long_messages, stream=True))

    assert (plain.value.code, streamed.value.code) == ("context_length_exceeded", "context_length_exceeded")


def test_an_invalid_parameter_raises_the_clients_bad_request_error(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="default", messages=HELLO, n=9)

    assert error.value.param == "n"


LOOK = {"name": "look", "parameters": {"type": "object", "properties": {}}}


def test_functions_are_called_under_their_former_name(client):
    parameters = {"model": "default", "messages": HELLO, "functions": [LOOK], "function_call": {"name": "look"}}

    choice = client.chat.completions.create(**parameters).choices[0]
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**parameters, stream=True)]

    assert (choice.message.function_call.name, choice.message.function_call.arguments) == ("look", "{}")
    assert (choice.message.tool_calls, choice.finish_reason) == (None, "function_call")
    deltas = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
    assert ([delta.name for delta in deltas], "".join(delta.arguments for delta in deltas)) == (["look", None], "{}")
    assert chunks[-1].finish_reason == "function_call"


def test_custom_tools_are_called_with_a_text(client):
    tool = {"type": "custom", "custom": {"name": "note"}}
    parameters = {"model": "default", "messages": HELLO, "tools": [tool], "tool_choice": "required"}

    completion = client.chat.completions.create(**parameters)
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**parameters, stream=True)]

    (call,) = completion.choices[0].message.tool_calls
    assert (call.type, call.custom.name, call.custom.input) == ("custom", "note", "")
    (first, *_) = [chunk.delta.tool_calls[0] for chunk in chunks if chunk.delta.tool_calls]
    assert (first.index, first.type, first.custom["name"]) == (0, "custom", "note")
    assert chunks[-1].finish_reason == "tool_calls"


def test_a_stream_names_what_was_ignored(client):
    tools = [{"type": "function", "function": LOOK}, {"type": "web_search"}]
    answer = client.chat.completions.with_raw_response.create(
        model="default", messages=HELLO, tools=tools, stream=True, extra_body={"session_id": "s"}
    )

    assert answer.headers["x-sangha-ignored"] == "session_id, tools[1] (web_search)"
    assert [chunk.choices[0].finish_reason for chunk in answer.parse()][-1] == "stop"

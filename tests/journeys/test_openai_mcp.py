"""The unmodified official client calls tools of MCP servers and agents; each event is valid by its own types."""

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent

from tests.journeys.openai_types import assert_valid_model
from tests.journeys.responses import ADD, TEXT, wait_for_end
from tests.journeys.shop import ALLOW, Shop, serve_shop
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation, openai_client

pytestmark = ON_REDIS

#: The types of the events around a call that needs no approval.
CALL_EVENTS = [
    "response.output_item.added",
    "response.mcp_call.in_progress",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.mcp_call.completed",
    "response.output_item.done",
]


@pytest.fixture(scope="module")
def running(installation: Installation) -> Installation:
    """An installation whose engine answers at once and calls the tools that a question names."""
    installation.start_web("web-a")
    installation.start_scheduler()
    installation.start_worker("tokens=20,rate=0", **ALLOW)
    installation.start_worker("tokens=20,rate=0", "tools", **ALLOW)
    return installation


@pytest.fixture
def shop() -> Iterator[Shop]:
    with serve_shop() as shop:
        yield shop


@pytest.fixture
def owner(running: Installation) -> AccountOwner:
    return AccountOwner(running)


@pytest.fixture
def client(running: Installation, owner: AccountOwner) -> Iterator[OpenAI]:
    """The official client with a new account."""
    with openai_client(running, owner) as client:
        yield client


@pytest.fixture
def buyer(owner: AccountOwner, shop: Shop) -> str:
    """The model of an agent that has the shop's tool."""
    body = {"name": "buyer", "instructions": "Be kind.", "tools": [shop.tool], "approval": "never"}
    created = owner.request("POST", "/v1/agents", json=body)
    assert created.status_code == 201, created.text
    return "agent/buyer"


def types(response: Response) -> list[str]:
    return [item.type for item in response.output]


def approval_of(response: Response) -> str:
    """Return the id of the request for approval with which a response ends."""
    assert_valid_model(response)
    assert (response.status, response.output[-1].type) == ("completed", "mcp_approval_request")
    return response.output[-1].id


def decision(approval_id: str, approve: bool, reason: str | None = None) -> list[dict[str, object]]:
    """Return the input that decides on a call."""
    item = {"type": "mcp_approval_response", "approval_request_id": approval_id, "approve": approve}
    return [{**item, "reason": reason} if reason else item]


def read_valid(events: openai.Stream[ResponseStreamEvent]) -> list[ResponseStreamEvent]:
    """Read a stream to its end; each event has to be valid."""
    read = []
    for event in events:
        assert_valid_model(event)
        read.append(event)
    numbers = [event.sequence_number for event in read]
    assert numbers == sorted(set(numbers))
    return read


def test_a_tool_of_an_mcp_server_without_streaming(client: OpenAI, shop: Shop):
    response = client.responses.create(model="default", input="call shop__buy", tools=[shop.tool])

    assert_valid_model(response)
    assert types(response) == ["mcp_list_tools", "mcp_call", "message"]
    listed, call, _ = response.output
    assert [(tool.name, tool.input_schema) for tool in listed.tools] == [("buy", {"type": "object"})]
    assert (call.name, call.server_label, call.arguments) == ("buy", "shop", "{}")
    assert (call.output, call.status, call.error) == ("bought", "completed", None)
    assert (response.output_text, response.tools[0].server_url) == (TEXT, shop.url)
    assert shop.calls == ["buy"]
    assert client.responses.retrieve(response.id) == response


def test_a_tool_of_an_mcp_server_with_streaming(client: OpenAI, shop: Shop):
    stream = client.responses.create(model="default", input="call shop__buy", tools=[shop.tool], stream=True)
    events = read_valid(stream)

    response = events[-1].response
    assert types(response) == ["mcp_list_tools", "mcp_call", "message"]
    by_index = {index: [event.type for event in events if getattr(event, "output_index", None) == index]
                for index in range(3)}  # fmt: skip
    assert by_index[0] == [
        "response.output_item.added",
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
        "response.output_item.done",
    ]
    assert by_index[1] == CALL_EVENTS
    assert by_index[2][-1] == "response.output_item.done"
    assert response == client.responses.retrieve(response.id)


def test_the_streaming_helper_accumulates_a_turn_with_calls(client: OpenAI, shop: Shop):
    with client.responses.stream(model="default", input="call shop__buy", tools=[shop.tool]) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        response = stream.get_final_response()

    assert types(response) == ["mcp_list_tools", "mcp_call", "message"]
    assert "".join(deltas) == response.output_text == TEXT


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_turn_approves_a_call(client: OpenAI, shop: Shop, stream: bool):
    tools = [shop.tool_with_approval]
    first = client.responses.create(model="default", input="call shop__buy", tools=tools)
    approval = approval_of(first)
    assert shop.calls == []

    turn = {"model": "default", "input": decision(approval, True), "tools": tools, "previous_response_id": first.id}
    if stream:
        second = read_valid(client.responses.create(**turn, stream=True))[-1].response
    else:
        second = client.responses.create(**turn)

    assert_valid_model(second)
    assert types(second) == ["mcp_call", "message"], "the tools are listed once in a chain"
    assert (second.output[0].output, second.output[0].approval_request_id) == ("bought", approval)
    assert shop.calls == ["buy"]
    with pytest.raises(openai.BadRequestError):  # once
        client.responses.create(**turn)
    assert shop.calls == ["buy"]


def test_a_denied_call_is_answered_without_it(client: OpenAI, shop: Shop):
    tools = [shop.tool_with_approval]
    first = client.responses.create(model="default", input="call shop__buy", tools=tools)

    second = client.responses.create(
        model="default", input=decision(approval_of(first), False, "Too expensive."), tools=tools,
        previous_response_id=first.id,
    )  # fmt: skip

    assert_valid_model(second)
    assert types(second) == ["message"]
    assert shop.calls == []


def test_a_conversation_keeps_calls_and_approvals(client: OpenAI, shop: Shop):
    conversation = client.conversations.create().id
    turn = {"model": "default", "tools": [shop.tool_with_approval], "conversation": conversation}
    first = client.responses.create(**turn, input="call shop__buy")
    client.responses.create(**turn, input=decision(approval_of(first), True))
    third = client.responses.create(**turn, input="more")

    items = list(client.conversations.items.list(conversation, order="asc"))
    for item in items:
        assert_valid_model(item)
    assert [item.type for item in items] == [
        "message", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "mcp_call", "message",
        "message", "message",
    ]  # fmt: skip
    assert third.output_text == TEXT
    assert shop.calls == ["buy"]


def test_items_of_calls_are_sent_back_as_input(client: OpenAI, shop: Shop):
    question = {"role": "user", "content": "call shop__buy"}
    first = client.responses.create(model="default", input=[question], tools=[shop.tool], store=False)

    again = [question, *first.output, {"role": "user", "content": "more"}]
    second = client.responses.create(model="default", input=again, tools=[shop.tool], store=False)

    assert_valid_model(second)
    assert types(second) == ["message"]


def test_a_background_turn_with_calls_is_streamed_later(client: OpenAI, shop: Shop):
    shop.open.clear()
    created = client.responses.create(model="default", input="call shop__buy", tools=[shop.tool], background=True)
    assert_valid_model(created)
    shop.open.set()
    wait_for_end(client, created.id)

    events = read_valid(client.responses.retrieve(created.id, stream=True))
    middle = events[len(events) // 2].sequence_number
    rest = read_valid(client.responses.retrieve(created.id, stream=True, starting_after=middle))

    assert types(events[-1].response) == ["mcp_list_tools", "mcp_call", "message"]
    assert rest == [event for event in events if event.sequence_number > middle]


def test_a_background_turn_is_followed_while_it_waits_for_a_call(client: OpenAI, shop: Shop):
    shop.open.clear()
    created = client.responses.create(model="default", input="call shop__buy", tools=[shop.tool], background=True)

    events = []
    for event in client.responses.retrieve(created.id, stream=True):
        assert_valid_model(event)
        events.append(event)
        if event.type == "response.mcp_call.in_progress":
            shop.open.set()

    assert types(events[-1].response) == ["mcp_list_tools", "mcp_call", "message"]


def test_an_agent_is_the_model_of_a_response(client: OpenAI, buyer: str, shop: Shop):
    plain = client.responses.create(model=buyer, input="call shop__buy")
    streamed = read_valid(client.responses.create(model=buyer, input="call shop__buy", stream=True))[-1].response

    for response in (plain, streamed):
        assert_valid_model(response)
        assert types(response) == ["mcp_list_tools", "mcp_call", "message"]
        assert (response.model, response.output_text) == (buyer, TEXT)
    assert buyer in [model.id for model in client.models.list()]
    assert client.models.retrieve(buyer).id == buyer


def test_a_turn_mixes_functions_of_the_caller_with_the_agents_tools(client: OpenAI, buyer: str, shop: Shop):
    first = client.responses.create(model=buyer, input="call shop__buy and call add", tools=[ADD])
    (call,) = [item for item in first.output if item.type == "function_call"]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    second = client.responses.create(model=buyer, input=[output], tools=[ADD], previous_response_id=first.id)

    assert_valid_model(first)
    assert sorted(types(first)) == ["function_call", "mcp_call", "mcp_list_tools"]
    assert shop.calls == ["buy"]
    assert (types(second), second.output_text) == (["message"], TEXT)


def test_an_agent_is_the_model_of_a_chat_completion(client: OpenAI, buyer: str, shop: Shop):
    messages = [{"role": "user", "content": "call shop__buy"}]
    completion = client.chat.completions.create(model=buyer, messages=messages)
    with client.chat.completions.stream(model=buyer, messages=messages) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()

    assert_valid_model(completion)
    for each in (completion, final):
        assert (each.choices[0].finish_reason, each.choices[0].message.content) == ("stop", TEXT)
        assert not each.choices[0].message.tool_calls, "calls that the server ran are not the caller's"
    assert "".join(deltas) == TEXT
    assert shop.calls == ["buy"] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_completion_mixes_functions_of_the_caller_with_the_agents_tools(
    client: OpenAI, buyer: str, shop: Shop, stream: bool
):
    messages = [{"role": "user", "content": "call shop__buy and call add"}]
    function = {"type": "function", "function": {name: ADD[name] for name in ("name", "parameters")}}
    request = {"model": buyer, "messages": messages, "tools": [function]}
    if stream:
        with client.chat.completions.stream(**request) as chunks:
            choice = chunks.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(**request).choices[0]

    (call,) = choice.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "3"}
    answered = client.chat.completions.create(**{**request, "messages": [*messages, choice.message, result]})

    assert (choice.finish_reason, call.function.name) == ("tool_calls", "add")
    assert answered.choices[0].message.content == TEXT
    assert shop.calls == ["buy"]

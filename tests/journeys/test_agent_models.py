"""Official clients call an agent as a model, and its usage is reported by its name."""

import pytest

from tests.journeys.stack import ON_REDIS, AccountOwner, Installation, openai_client

pytestmark = ON_REDIS

FUNCTION = {"type": "function", "name": "look_up", "description": "Look up a word.", "parameters": {"type": "object"}}


@pytest.fixture
def agent(stack: Installation, user: AccountOwner) -> str:
    """The model name of an agent, whose instructions make the scripted engine call a function."""
    stack.start_worker("tokens=8,rate=0")
    fields = {"name": "helper", "instructions": "call look_up", "tools": [FUNCTION]}
    assert user.request("POST", "/v1/agents", json=fields).status_code == 201
    return "agent/helper"


def test_openais_client_lists_and_reads_an_agent_as_a_model(stack: Installation, user: AccountOwner, agent: str):
    with openai_client(stack, user) as client:
        assert agent in [model.id for model in client.models.list()]
        assert client.models.retrieve(agent).owned_by == user.account


def test_an_agent_answers_responses_with_its_tools(stack: Installation, user: AccountOwner, agent: str):
    with openai_client(stack, user) as client:
        response = client.responses.create(model=agent, input="hello")
        with client.responses.stream(model=agent, input="hello") as stream:
            streamed = list(stream)[-1].response

    for each in (response, streamed):
        assert (each.model, each.status) == (agent, "completed")
        assert [(item.type, item.name) for item in each.output] == [("function_call", "look_up")]
        assert (each.tools, each.instructions) == ([], None)  # the definition belongs to the account


def test_an_agent_answers_chat_completions(stack: Installation, user: AccountOwner, agent: str):
    messages = [{"role": "user", "content": "hello"}]
    with openai_client(stack, user) as client:
        completion = client.chat.completions.create(model=agent, messages=messages)
        chunks = list(client.chat.completions.create(model=agent, messages=messages, stream=True))

    assert (completion.model, chunks[0].model) == (agent, agent)
    (call,) = completion.choices[0].message.tool_calls or []
    assert call.function.name == "look_up"
    names = [
        call.function.name for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []
    ]
    assert [name for name in names if name] == ["look_up"]


def test_the_tokens_of_an_agent_are_counted_with_its_instructions(stack: Installation, user: AccountOwner, agent: str):
    with openai_client(stack, user) as client:
        alone = client.responses.input_tokens.count(model="default", input="hello").input_tokens
        with_agent = client.responses.input_tokens.count(model=agent, input="hello").input_tokens

    assert with_agent > alone


def test_usage_is_grouped_by_agent(stack: Installation, user: AccountOwner, agent: str):
    with openai_client(stack, user) as client:
        client.responses.create(model=agent, input="hello")

    groups = user.get("/v1/account/usage?group_by=agent")["report"]["data"]

    assert [(group["key"], group["jobs"]) for group in groups] == [("helper", 1)]

"""OpenAI's own client, over responses and chat completions."""

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel
from steps import AGENT, BOUGHT, BUY, DIMENSIONS, EMBEDDER, MODEL, SHOP, check_history, check_text, run

QUESTION = [{"role": "user", "content": "Please call Weather."}]


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


class Weather(BaseModel):
    """Tells the weather of a city."""

    city: str


client = OpenAI(max_retries=0, timeout=60)


def hello() -> None:
    """Read an answer at once."""
    check_text(client.responses.create(model=MODEL, input="hello").output_text)
    completion = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
    check_text(completion.choices[0].message.content)


def stream() -> None:
    """Read an answer with the stream helpers."""
    with client.responses.stream(model=MODEL, input="hello") as events:
        check_text("".join(event.delta for event in events if event.type == "response.output_text.delta"))
    with client.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": "hello"}]) as events:
        check_text("".join(event.delta for event in events if event.type == "content.delta"))


def tools() -> None:
    """Call a function and send its output."""
    tool = pydantic_function_tool(Weather)
    function = {"type": "function", **tool["function"]}
    request = client.responses.create(model=MODEL, input=QUESTION, tools=[function])
    (call,) = request.output
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "It rains."}
    check_text(client.responses.create(model=MODEL, input=[*QUESTION, call, output], tools=[function]).output_text)
    message = client.chat.completions.create(model=MODEL, messages=QUESTION, tools=[tool]).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "It rains."}
    answer = client.chat.completions.create(model=MODEL, messages=[*QUESTION, message, result], tools=[tool])
    check_text(answer.choices[0].message.content)


def schema() -> None:
    """Parse JSON by a schema."""
    response = client.responses.parse(model=MODEL, input="hello", text_format=Sighting)
    completion = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "hello"}], response_format=Sighting
    )
    assert response.output_parsed == completion.choices[0].message.parsed == Sighting(animal="", count=0)


def embeddings() -> None:
    """Embed two texts."""
    vectors = client.embeddings.create(model=EMBEDDER, input=["a cat", "a dog"]).data
    assert [len(vector.embedding) for vector in vectors] == [DIMENSIONS] * 2


def conversation() -> None:
    """Continue a conversation and a chain."""
    about = client.conversations.create().id
    first = client.responses.create(model=MODEL, input="one", conversation=about)
    second = client.responses.create(model=MODEL, input="two", conversation=about)
    chained = client.responses.create(model=MODEL, input="two", previous_response_id=first.id)
    check_history(second.usage.input_tokens)
    check_history(chained.usage.input_tokens)
    assert len(client.conversations.items.list(about).data) == 4


def mcp() -> None:
    """Let the server call a tool of an MCP server."""
    response = client.responses.create(model=MODEL, input=BUY, tools=[SHOP])
    assert [item.output for item in response.output if item.type == "mcp_call"] == [BOUGHT]
    check_text(response.output_text)
    with client.responses.stream(model=MODEL, input=BUY, tools=[SHOP]) as events:
        assert "response.mcp_call.completed" in [event.type for event in events]


def agent() -> None:
    """Ask an agent of the server."""
    check_text(client.responses.create(model=AGENT, input=BUY).output_text)
    with client.chat.completions.stream(model=AGENT, messages=[{"role": "user", "content": BUY}]) as events:
        check_text("".join(event.delta for event in events if event.type == "content.delta"))


def approval() -> None:
    """Approve a call."""
    tools = [{**SHOP, "require_approval": "always"}]
    first = client.responses.create(model=MODEL, input=BUY, tools=tools)
    answer = {"type": "mcp_approval_response", "approval_request_id": first.output[-1].id, "approve": True}
    second = client.responses.create(model=MODEL, input=[answer], tools=tools, previous_response_id=first.id)
    assert [item.output for item in second.output if item.type == "mcp_call"] == [BOUGHT]


if __name__ == "__main__":
    run(hello, stream, tools, schema, mcp, agent, embeddings, conversation, approval)

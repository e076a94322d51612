"""LangChain, over responses and chat completions."""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from steps import AGENT, BOUGHT, BUY, DIMENSIONS, EMBEDDER, MODEL, SHOP, check_history, check_text, run

MODELS, AGENTS = (
    [ChatOpenAI(model=name, timeout=60, max_retries=0, use_responses_api=responses) for responses in (True, False)]
    for name in (MODEL, AGENT)
)


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


def hello() -> None:
    """Read an answer at once."""
    for model in MODELS:
        answer = model.invoke([SystemMessage("Be kind."), HumanMessage("hello")])
        check_text(answer.text)
        assert answer.usage_metadata["output_tokens"] == 20


def stream() -> None:
    """Read the pieces of an answer."""
    for model in MODELS:
        check_text("".join(piece.text for piece in model.stream("hello")))


def tools() -> None:
    """Let an agent call a function and answer."""
    for model in MODELS:
        agent = create_agent(model, [weather], system_prompt="Be kind.")
        messages = agent.invoke({"messages": [HumanMessage("Please call weather.")]})["messages"]
        assert messages[-2].content == "It rains in ."
        check_text(messages[-1].text)


def schema() -> None:
    """Get a type by a schema, and by a call of a function."""
    for model in MODELS:
        for method in ("json_schema", "function_calling"):
            answer = model.with_structured_output(Sighting, method=method).invoke("hello")
            assert answer == Sighting(animal="", count=0)


def conversation() -> None:
    """Continue with the messages so far."""
    for model in MODELS:
        first = model.invoke([HumanMessage("one")])
        second = model.invoke([HumanMessage("one"), first, HumanMessage("two")])
        check_history(second.usage_metadata["input_tokens"])


def embeddings() -> None:
    """Embed two texts, sent as texts instead of tokens of another model."""
    vectors = OpenAIEmbeddings(model=EMBEDDER, check_embedding_ctx_length=False).embed_documents(["a cat", "a dog"])
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * 2


def mcp() -> None:
    """Let the server call a tool of an MCP server, and continue with the items of the call."""
    model = MODELS[0].bind_tools([SHOP])
    answer = model.invoke(BUY)
    pieces = list(model.stream(BUY))
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    for message in (answer, total):
        check_text(message.text)
        assert outputs(message) == [BOUGHT], message.content
        check_text(model.invoke([HumanMessage(BUY), message, HumanMessage("more")]).text)


def agent() -> None:
    """Ask an agent of the server, also with functions of one's own."""
    for model in AGENTS:
        check_text(model.invoke(BUY).text)
        check_text("".join(piece.text for piece in model.stream(BUY)))
        messages = create_agent(model, [weather]).invoke({"messages": [HumanMessage(f"{BUY} And call weather.")]})
        assert messages["messages"][-2].content == "It rains in ."
        check_text(messages["messages"][-1].text)


def approval() -> None:
    """Approve a call."""
    model = MODELS[0].bind_tools([{**SHOP, "require_approval": "always"}])
    first = model.invoke(BUY)
    requests = [block for block in first.content if block["type"] == "mcp_approval_request"]
    answer = {"type": "mcp_approval_response", "approval_request_id": requests[0]["id"], "approve": True}
    second = model.invoke([HumanMessage([answer])], previous_response_id=first.response_metadata["id"])
    assert outputs(second) == [BOUGHT], second.content


def outputs(message: AIMessage) -> list[str]:
    """Return the outputs of the tool that the server called."""
    return [block["output"] for block in message.content if block["type"] == "mcp_call"]


if __name__ == "__main__":
    run(hello, stream, tools, schema, mcp, agent, conversation, embeddings, approval)

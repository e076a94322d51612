"""LangGraph: two named agents in one graph, over responses and chat completions."""

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from steps import MODEL, check_text, run

MODELS = [
    ChatOpenAI(model=MODEL, timeout=60, max_retries=0, use_responses_api=responses) for responses in (True, False)
]


def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


def graph_of(model: ChatOpenAI):
    """Return a graph in which one agent answers after another."""
    graph = StateGraph(MessagesState)
    for name in ("clerk", "translator"):
        graph.add_node(name, create_agent(model, [weather], name=name))
    graph.add_edge(START, "clerk")
    graph.add_edge("clerk", "translator")
    return graph.compile()


def hello() -> None:
    """Read the answer of the second agent, to which the first one's name is sent."""
    for model in MODELS:
        messages = graph_of(model).invoke({"messages": [HumanMessage("hello")]})["messages"]
        assert [message.name for message in messages] == [None, "clerk", "translator"]
        check_text(messages[-1].text)


def stream() -> None:
    """Read the pieces of both answers."""
    for model in MODELS:
        pieces = graph_of(model).stream({"messages": [HumanMessage("hello")]}, stream_mode="messages", subgraphs=True)
        texts: dict[str, str] = {}
        for _, (piece, metadata) in pieces:
            name = metadata["lc_agent_name"]
            texts[name] = texts.get(name, "") + piece.text
        check_text(texts["translator"])


def tools() -> None:
    """Let the first agent call a function, and the second one answer after it."""
    for model in MODELS:
        messages = graph_of(model).invoke({"messages": [HumanMessage("Please call weather.")]})["messages"]
        assert [message.type for message in messages] == ["human", "ai", "tool", "ai", "ai"]
        check_text(messages[-1].text)


if __name__ == "__main__":
    run(hello, stream, tools)

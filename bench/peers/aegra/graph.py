"""The smallest graph that answers: one node that requests a chat model, as in the peer's own examples."""

import os

from langchain_core.messages import BaseMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import SecretStr

model = ChatOpenAI(
    model=os.environ["PEER_MODEL"], base_url=os.environ["PEER_ENDPOINT"], api_key=SecretStr("none"), streaming=True
)


async def answer(state: MessagesState) -> dict[str, list[BaseMessage]]:
    """Request an answer to all messages so far."""
    return {"messages": [await model.ainvoke(state["messages"])]}


builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
graph = builder.compile()

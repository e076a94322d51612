"""Haystack, over responses and chat completions."""

import json

from haystack import Document
from haystack.components.agents import Agent
from haystack.components.embedders import OpenAIDocumentEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from pydantic import BaseModel
from steps import DIMENSIONS, EMBEDDER, MODEL, URL, check_text, run

OPTIONS = {"model": MODEL, "api_base_url": URL, "timeout": 60, "max_retries": 0}
GENERATORS = [OpenAIResponsesChatGenerator, OpenAIChatGenerator]


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


def hello() -> None:
    """Read an answer at once."""
    for generator in GENERATORS:
        (reply,) = generator(**OPTIONS).run([ChatMessage.from_user("hello")])["replies"]
        check_text(reply.text)


def stream() -> None:
    """Read the pieces of an answer."""
    for generator in GENERATORS:
        pieces: list[str] = []
        streaming = generator(streaming_callback=lambda piece, pieces=pieces: pieces.append(piece.content), **OPTIONS)
        streaming.run([ChatMessage.from_user("hello")])
        check_text("".join(pieces))


def tools() -> None:
    """Let an agent call a function and answer."""
    for generator in GENERATORS:
        agent = Agent(chat_generator=generator(**OPTIONS), tools=[weather])
        messages = agent.run(messages=[ChatMessage.from_user("Please call weather.")])["messages"]
        assert "It rains in ." in str(messages[-2].tool_call_result.result)
        check_text(messages[-1].text)


def schema() -> None:
    """Get JSON by a schema."""
    for generator, option in zip(GENERATORS, ("text_format", "response_format"), strict=True):
        structured = generator(generation_kwargs={option: Sighting}, **OPTIONS)
        (reply,) = structured.run([ChatMessage.from_user("hello")])["replies"]
        assert json.loads(reply.text) == {"animal": "", "count": 0}


def embeddings() -> None:
    """Embed two documents."""
    embedder = OpenAIDocumentEmbedder(model=EMBEDDER, api_base_url=URL, timeout=60, max_retries=0, progress_bar=False)
    documents = embedder.run([Document(content="a cat"), Document(content="a dog")])["documents"]
    assert [len(document.embedding) for document in documents] == [DIMENSIONS] * 2


if __name__ == "__main__":
    run(hello, stream, tools, schema, embeddings)

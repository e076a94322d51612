"""Semantic Kernel, whose agents send their names."""

from openai import AsyncOpenAI
from pydantic import BaseModel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
    OpenAITextEmbedding,
)
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import KernelArguments, kernel_function
from steps import DIMENSIONS, EMBEDDER, MODEL, check_text, run

client = AsyncOpenAI(max_retries=0, timeout=60)
service = OpenAIChatCompletion(ai_model_id=MODEL, async_client=client)


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


class Station:
    """A plugin with one function."""

    @kernel_function
    def weather(self, city: str) -> str:
        """Tells the weather of a city."""
        return f"It rains in {city}."


async def hello() -> None:
    """Read an answer at once."""
    history = ChatHistory(system_message="Be kind.")
    history.add_user_message("hello")
    check_text(str(await service.get_chat_message_content(history, OpenAIChatPromptExecutionSettings())))


async def stream() -> None:
    """Read the pieces of an answer."""
    pieces = ChatCompletionAgent(service=service, name="clerk").invoke_stream(messages="hello")
    check_text("".join([str(piece.message) async for piece in pieces]))


async def tools() -> None:
    """Let an agent call a function and answer."""
    agent = ChatCompletionAgent(service=service, name="clerk", plugins=[Station()])
    answer = await agent.get_response(messages="Please call Station-weather.")
    check_text(str(answer.message))


async def schema() -> None:
    """Get JSON by a schema."""
    settings = OpenAIChatPromptExecutionSettings(response_format=Sighting)
    agent = ChatCompletionAgent(service=service, name="clerk", arguments=KernelArguments(settings=settings))
    answer = await agent.get_response(messages="hello")
    assert Sighting.model_validate_json(str(answer.message)) == Sighting(animal="", count=0)


async def conversation() -> None:
    """Continue a thread, in which the agent's message has its name."""
    agent = ChatCompletionAgent(service=service, name="clerk")
    first = await agent.get_response(messages="one")
    second = await agent.get_response(messages="two", thread=first.thread)
    check_text(str(second.message))


async def embeddings() -> None:
    """Embed two texts."""
    embedder = OpenAITextEmbedding(ai_model_id=EMBEDDER, async_client=client)
    vectors = await embedder.generate_embeddings(["a cat", "a dog"])
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * 2


if __name__ == "__main__":
    run(hello, stream, tools, schema, conversation, embeddings)

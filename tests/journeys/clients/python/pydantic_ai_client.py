"""Pydantic AI, over responses and chat completions."""

from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from steps import DIMENSIONS, EMBEDDER, KEY, MODEL, URL, check_history, check_text, run

provider = OpenAIProvider(base_url=URL, api_key=KEY)
MODELS = [OpenAIResponsesModel(MODEL, provider=provider), OpenAIChatModel(MODEL, provider=provider)]


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


def is_result(part: object) -> bool:
    """Return whether a part of a message is the result of a tool."""
    return getattr(part, "part_kind", None) == "tool-return"


async def hello() -> None:
    """Read an answer at once."""
    for model in MODELS:
        check_text((await Agent(model, instructions="Be kind.").run("hello")).output)


async def stream() -> None:
    """Read the pieces of an answer."""
    for model in MODELS:
        async with Agent(model).run_stream("hello") as result:
            check_text("".join([piece async for piece in result.stream_text(delta=True, debounce_by=None)]))


async def tools() -> None:
    """Let the agent call a function and answer."""
    for model in MODELS:
        result = await Agent(model, tools=[weather]).run("Please call weather.")
        check_text(result.output)
        returned = [part.content for message in result.all_messages() for part in message.parts if is_result(part)]
        assert returned == ["It rains in ."]


async def schema() -> None:
    """Get a type by a schema, and by a call of a tool for it."""
    for model in MODELS:
        for output in (NativeOutput(Sighting), Sighting):
            assert (await Agent(model, output_type=output).run("hello")).output == Sighting(animal="", count=0)


async def conversation() -> None:
    """Continue with the messages of an earlier run."""
    for model in MODELS:
        agent = Agent(model)
        first = await agent.run("one")
        second = await agent.run("two", message_history=first.all_messages())
        check_history(second.usage.input_tokens)


async def embeddings() -> None:
    """Embed two texts."""
    result = await Embedder(OpenAIEmbeddingModel(EMBEDDER, provider=provider)).embed_documents(["a cat", "a dog"])
    assert [len(vector) for vector in result.embeddings] == [DIMENSIONS] * 2


if __name__ == "__main__":
    run(hello, stream, tools, schema, embeddings, conversation)

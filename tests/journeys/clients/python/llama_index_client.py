"""LlamaIndex with `OpenAILike`."""

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from steps import DIMENSIONS, EMBEDDER, KEY, MODEL, URL, check_text, run


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


model = OpenAILike(
    model=MODEL,
    api_base=URL,
    api_key=KEY,
    is_chat_model=True,
    is_function_calling_model=True,
    should_use_structured_outputs=True,
    timeout=60,
    max_retries=0,
)


def hello() -> None:
    """Read an answer at once."""
    check_text(model.chat([ChatMessage("hello")]).message.content)


def stream() -> None:
    """Read the pieces of an answer."""
    check_text("".join(piece.delta or "" for piece in model.stream_chat([ChatMessage("hello")])))


async def tools() -> None:
    """Let an agent call a function and answer."""
    agent = FunctionAgent(tools=[weather], llm=model, system_prompt="Be kind.")
    result = await agent.run("Please call weather.")
    check_text(result.response.content)
    assert [call.tool_output.content for call in result.tool_calls] == ["It rains in ."]


def schema() -> None:
    """Get a type by a schema."""
    answer = model.as_structured_llm(Sighting).chat([ChatMessage("hello")])
    assert answer.raw == Sighting(animal="", count=0)


def embeddings() -> None:
    """Embed two texts."""
    embedder = OpenAILikeEmbedding(model_name=EMBEDDER, api_base=URL, api_key=KEY, max_retries=0)
    vectors = embedder.get_text_embedding_batch(["a cat", "a dog"])
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * 2


if __name__ == "__main__":
    run(hello, stream, tools, schema, embeddings)

"""LangChain, over responses and chat completions."""

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from steps import DIMENSIONS, EMBEDDER, MODEL, check_history, check_text, run

MODELS = [
    ChatOpenAI(model=MODEL, timeout=60, max_retries=0, use_responses_api=responses) for responses in (True, False)
]


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


if __name__ == "__main__":
    run(hello, stream, tools, schema, embeddings, conversation)

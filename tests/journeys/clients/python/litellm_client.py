"""LiteLLM, over responses and chat completions."""

import json

import litellm
from pydantic import BaseModel
from steps import DIMENSIONS, EMBEDDER, KEY, MODEL, URL, check_text, run

OPTIONS = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY, "timeout": 60}
HELLO = [{"role": "user", "content": "hello"}]
QUESTION = [{"role": "user", "content": "Please call weather."}]
FUNCTION = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


def hello() -> None:
    """Read an answer at once."""
    check_text(litellm.completion(messages=HELLO, **OPTIONS).choices[0].message.content)
    response = litellm.responses(input="hello", **OPTIONS)
    check_text(response.output[0].content[0].text)


def stream() -> None:
    """Read the pieces of an answer."""
    chunks = litellm.completion(messages=HELLO, stream=True, **OPTIONS)
    check_text("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    events = litellm.responses(input="hello", stream=True, **OPTIONS)
    check_text("".join(event.delta for event in events if event.type == "response.output_text.delta"))


def tools() -> None:
    """Call a function and send its output."""
    definition = [{"type": "function", "function": FUNCTION}]
    message = litellm.completion(messages=QUESTION, tools=definition, **OPTIONS).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": ""}
    result = {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": "It rains."}
    answer = litellm.completion(messages=[*QUESTION, message, result], tools=definition, **OPTIONS)
    check_text(answer.choices[0].message.content)


def schema() -> None:
    """Get JSON by a schema."""
    answer = litellm.completion(messages=HELLO, response_format=Sighting, **OPTIONS)
    assert json.loads(answer.choices[0].message.content) == {"animal": "", "count": 0}


def embeddings() -> None:
    """Embed two texts."""
    options = {**OPTIONS, "model": f"openai/{EMBEDDER}"}
    vectors = litellm.embedding(input=["a cat", "a dog"], **options).data
    assert [len(vector["embedding"]) for vector in vectors] == [DIMENSIONS] * 2


if __name__ == "__main__":
    run(hello, stream, tools, schema, embeddings)

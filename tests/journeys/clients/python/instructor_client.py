"""Instructor, over responses and chat completions, by functions and by schemas."""

import instructor
from openai import OpenAI
from pydantic import BaseModel
from steps import MODEL, run

HELLO = [{"role": "user", "content": "hello"}]
EMPTY = {"animal": "", "count": 0}


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


def client_of(mode: instructor.Mode) -> instructor.Instructor:
    """Return a client that asks for JSON in one of Instructor's ways."""
    return instructor.from_openai(OpenAI(max_retries=0, timeout=60), mode=mode)


def hello() -> None:
    """Get a type in Instructor's default way, by a function."""
    client = instructor.from_openai(OpenAI(max_retries=0, timeout=60))
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, response_model=Sighting, max_retries=0)
    assert answer.model_dump() == EMPTY


def stream() -> None:
    """Get a type piece by piece."""
    client = client_of(instructor.Mode.TOOLS)
    partials = list(client.chat.completions.create_partial(model=MODEL, messages=HELLO, response_model=Sighting))
    assert partials[-1].model_dump() == EMPTY


def tools() -> None:
    """Get a type by a strict function, and by one of responses."""
    for mode in (instructor.Mode.TOOLS_STRICT, instructor.Mode.RESPONSES_TOOLS):
        client = client_of(mode)
        answer = client.create(model=MODEL, messages=HELLO, response_model=Sighting, max_retries=0)
        assert answer.model_dump() == EMPTY


def schema() -> None:
    """Get a type by a schema."""
    client = client_of(instructor.Mode.JSON_SCHEMA)
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, response_model=Sighting, max_retries=0)
    assert answer.model_dump() == EMPTY


if __name__ == "__main__":
    run(hello, stream, tools, schema)

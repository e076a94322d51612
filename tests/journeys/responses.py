"""Responses of the scripted engine, and how to wait for them."""

from openai import OpenAI
from openai.types.responses import Response

from bench.harness.waiting import wait_until

TEXT = "".join(f"w{index} " for index in range(20))

ITEMS = [
    {"role": "developer", "content": "Answer briefly."},
    {"role": "user", "content": [{"type": "input_text", "text": "one two"}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
    {"type": "message", "role": "user", "content": "four"},
]

ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}


def wait_for_end(client: OpenAI, response_id: str) -> Response:
    """Return a response once it has ended."""
    responses: list[Response] = []

    def has_ended() -> bool:
        responses.append(client.responses.retrieve(response_id))
        return responses[-1].status not in ("queued", "in_progress")

    wait_until(has_ended)
    return responses[-1]

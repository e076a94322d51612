"""Asking the language model about what is remembered: it writes a list of suggestions, each citing memories.

The memories are told as numbered lines. What of an answer is worth keeping is for who asks to say.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.usage import TokenUsage, bill
from models.memory import scan
from models.memory.scan import MemoryText
from pipelines.inference.engine import Engine, Finish, Message, OutputFormat

Prompt = Callable[[Sequence[MemoryText]], Sequence[Message]]
Schema = Callable[[int], Mapping[str, Any]]


def suggestions_schema(
    name: str, members: Mapping[str, Any], *, most: int, lines: int, cited: int
) -> Mapping[str, Any]:
    """The JSON that the model must write: at most so many objects with these members and `sources`.

    lines  how many lines are told, by whose numbers the sources are named
    cited  how many of them one suggestion may cite
    """
    source = {"type": "integer", "minimum": 1, "maximum": lines}
    one = _exactly({**members, "sources": {"type": "array", "items": source, "maxItems": cited}})
    return _exactly({name: {"type": "array", "items": one, "maxItems": most}})


def _exactly(members: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": [*members], "additionalProperties": False}


def fitting_sources(
    engine: Engine, attempt: Attempt, prompt: Prompt, schema: Schema, answer: int
) -> Sequence[MemoryText]:
    """As many of the memories that the job names, the latest, as the context holds beside an answer of `answer` tokens.

    Memories that are gone or closed are not among them.
    """
    arguments = attempt.job.arguments
    with attempt.database.connection() as connection:
        said: Sequence[MemoryText] = scan.read_texts(
            connection, arguments["source_ids"], attempt.job.account_id, arguments["user_id"]
        )
    while said and engine.count(prompt(said), OutputFormat(schema=schema(len(said)))) + answer > engine.context:
        said = said[1:]
    return said


def parse_suggestions(answer: str, name: str, most: int) -> list[Any]:
    """What the model has written into the list; nothing where it was cut off, or wrote no JSON at all."""
    try:
        written: list[Any] = orjson.loads(answer)[name][:most]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
    return written


def suggestion_ending(
    engine: Engine, attempt: Attempt, finish: Finish, told: Mapping[str, Any], kept: Mapping[str, Any]
) -> Ending:
    """The end of the job, which bills the tokens: `told` stands in its last event, `kept` only in its result."""
    job, usage = attempt.job, TokenUsage(finish.prompt_tokens, 0, finish.generated_tokens)
    return Ending(
        "completed",
        plain_ending(attempt, "completed", result=dict(told)).events,
        result={**told, **kept},
        record=lambda connection: bill(connection, usage, job_id=job.id, account_id=job.account_id, model=engine.name),
        tokens=finish.prompt_tokens + finish.generated_tokens,
    )

"""Ask the language model for suggestions about memories: a list of objects, each citing the memories it follows from.

The prompt shows the memories as numbered lines. The callers decide which suggestions to accept.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.usage import TokenUsage, UsageSource, bill
from models.memory import scan
from models.memory.scan import MemoryText
from models.memory.spaces import SpaceKey
from pipelines.inference.engine import Engine, Finish, Message, OutputFormat

BuildPrompt = Callable[[Sequence[MemoryText]], Sequence[Message]]
BuildSchema = Callable[[int], Mapping[str, Any]]


def suggestions_schema(
    name: str, members: Mapping[str, Any], *, most: int, lines: int, cited: int
) -> Mapping[str, Any]:
    """Build the JSON Schema of an answer: an object with a list `name` of objects with these members and `sources`.

    most   the most suggestions
    lines  the number of lines in the prompt; sources are line numbers
    cited  the most sources of a suggestion
    """
    source = {"type": "integer", "minimum": 1, "maximum": lines}
    suggestion = _closed_object({**members, "sources": {"type": "array", "items": source, "maxItems": cited}})
    return _closed_object({name: {"type": "array", "items": suggestion, "maxItems": most}})


def _closed_object(members: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": [*members], "additionalProperties": False}


def fitting_sources(
    engine: Engine, attempt: Attempt, prompt: BuildPrompt, schema: BuildSchema, answer_tokens: int
) -> Sequence[MemoryText]:
    """Read the memories that the job names, as many of the latest as fit the context beside the answer.

    What the job has reserved bounds both, too. Deleted and closed memories are left out.
    """
    job = attempt.job
    most = min(engine.context, job.reserved_tokens or engine.context)
    with attempt.database.connection() as connection:
        sources: Sequence[MemoryText] = scan.read_texts(connection, job.arguments["source_ids"], SpaceKey.of_job(job))
    while sources:
        tokens = engine.count(prompt(sources), OutputFormat(schema=schema(len(sources))))
        if tokens + answer_tokens <= most:
            break
        sources = sources[1:]
    return sources


def parse_suggestions(answer: str, name: str, most: int) -> list[Any]:
    """Parse the list of an answer; empty if the answer was cut off or is not JSON."""
    try:
        suggestions: list[Any] = orjson.loads(answer)[name][:most]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
    return suggestions


def suggestion_ending(
    engine: Engine, attempt: Attempt, finish: Finish, public: Mapping[str, Any], private: Mapping[str, Any]
) -> Ending:
    """Complete the job and bill its tokens.

    public   goes to the journal and the result
    private  goes to the result only, because it contains texts
    """
    job, usage = attempt.job, TokenUsage(finish.prompt_tokens, 0, finish.generated_tokens)
    source = UsageSource.of_job(job, engine.endpoint)
    return Ending(
        "completed",
        plain_ending(attempt, "completed", result=dict(public)).events,
        result={**public, **private},
        record=lambda connection: bill(
            connection, usage, job_id=job.id, account_id=job.account_id, model=engine.name, source=source
        ),
        tokens=finish.prompt_tokens + finish.generated_tokens,
    )

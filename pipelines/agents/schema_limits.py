"""Decide which schemas of tools the engine's grammars enforce. A schema of an untrusted server must not end a turn.

A schema that is refused, or that takes long to compile, becomes that of any object: the server checks its arguments.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.platform.errors import Unavailable
from pipelines.inference.grammars.compiler import compiler

#: Seconds of CPU time for one schema, and for all of a server: a turn has two seconds for all of its tools.
SCHEMA_BUDGET, SERVER_BUDGET = 0.05, 0.25


def open_refused_schemas(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the tools, those whose schemas are not enforced with `open`."""
    enforced = _enforced(tools)
    return [tool if ok else {**tool, "open": True} for tool, ok in zip(tools, enforced, strict=True)]


def _enforced(tools: Sequence[Mapping[str, Any]]) -> Iterator[bool]:
    """Yield for each tool whether its schema is enforced."""
    left = SERVER_BUDGET
    for tool in tools:
        seconds = _compile_seconds(tool["input_schema"], min(left, SCHEMA_BUDGET)) if left > 0 else None
        left -= SCHEMA_BUDGET if seconds is None else seconds
        yield seconds is not None


def _compile_seconds(schema: Mapping[str, Any], budget: float) -> float | None:
    """Return how long a schema takes to compile; None if it is refused."""
    if schema.get("type") != "object":
        return None
    try:
        verdict = compiler().check([{"schema": schema, "strict": False}], budget)[0]
    except Unavailable:
        return None
    return None if verdict.error is not None else verdict.seconds

"""Check that the engine can enforce JSON Schemas, before it starts. Loads no model.

The schemas are compiled by a child process; see `pipelines.inference.grammars`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import OutputFormat
from pipelines.inference.grammars.compiler import BUDGET, Verdict, compiler
from pipelines.inference.grammars.subschemas import without_patterns

#: How much longer than the door's check a worker's may take: its processor may be slower, and a grammar of several
#: schemas takes a little longer than the schemas. More would be a permanent failure of an accepted turn.
WORKER_BUDGET = 4 * BUDGET


@dataclass(frozen=True, slots=True)
class NamedSchema:
    """A JSON Schema of a request, and the parameter that contains it."""

    param: str
    schema: Mapping[str, Any]
    strict: bool = False


def first_schema_error(schemas: Sequence[NamedSchema], budget: float = BUDGET) -> tuple[str, str] | None:
    """Return the parameter of the first schema that a grammar can't enforce and the reason in a few words, or None.

    With `strict` a keyword that no grammar can enforce, such as `not`, is an error; otherwise it is ignored.
    All schemas together may take `budget` seconds of CPU time. Blocks while the child process compiles what is new.
    """
    tasks = []
    for named in schemas:
        if error := _unreadable(named.schema):
            return named.param, error
        tasks.append({"schema": named.schema, "strict": named.strict})
    for named, verdict in zip(schemas, compiler().check(tasks, budget), strict=False):
        if verdict.error is not None:
            return named.param, verdict.error
    return None


def check_output_format(output_format: OutputFormat) -> None:
    """Raise PermanentFailure("invalid_request") where a grammar can't enforce the output format."""
    schemas = [NamedSchema(f"Calls of {tool.name}", tool.parameters) for tool in output_format.callable_tools]
    if output_format.schema:
        schemas.append(NamedSchema("The answer", output_format.schema))
    if found := first_schema_error(schemas, WORKER_BUDGET):
        raise PermanentFailure(
            f"{found[0]} cannot be constrained to the JSON Schema: {found[1]}", code="invalid_request"
        )


def enforced_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a grammar enforces of a valid schema: all but the regular expressions that no grammar can enforce."""
    verdict: Verdict = compiler().check([{"schema": schema, "strict": False}], WORKER_BUDGET)[0]
    enforced: Mapping[str, Any] = without_patterns(schema, frozenset(verdict.ignored)) if verdict.ignored else schema
    return enforced


def _unreadable(schema: Mapping[str, Any]) -> str | None:
    """Return why a schema cannot be passed to the child process."""
    try:
        orjson.dumps(schema)
    except (orjson.JSONEncodeError, RecursionError):
        return "it is too deeply nested, or contains a value that JSON does not have"
    return None

"""Read the function calls of an endpoint's answer, which arrive in parts.

OpenAI numbers the calls by `index` and gives each an `id` in its first part. Ollama numbers all calls 0, and its
earlier versions leave the index out; others send the arguments as an object instead of JSON in a string.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipelines.inference.openai.chunk_json import join_halves


@dataclass(slots=True)
class PartialCall:
    """A call, of which not all parts may have arrived."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    @property
    def complete(self) -> tuple[str, str]:
        """The name and the arguments, as text that is usually JSON."""
        return join_halves(self.name), join_halves("".join(self.arguments)) or "{}"


class CallReader:
    """Collects the parts of calls.

    calls  the calls in the order in which they began
    """

    def __init__(self) -> None:
        self.calls: list[PartialCall] = []
        self._by_index: dict[int, PartialCall] = {}

    def add(self, part: Mapping[str, Any]) -> None:
        """Add a part of a call. Raises ValueError, TypeError or AttributeError for anything else."""
        function = part.get("function") or {}
        call = self._call(part.get("index"), part.get("id") or "", function.get("name") or "")
        call.id = call.id or part.get("id") or ""
        call.name = call.name or function.get("name") or ""
        arguments = function.get("arguments") or ""
        call.arguments.append(arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode())

    def _call(self, index: int | None, id_: str, name: str) -> PartialCall:
        """Return the call that a part belongs to: a new one, if another call has its index."""
        key = int(index or 0)
        call = self._by_index.get(key)
        if call is None or (id_ and call.id and id_ != call.id) or (index is None and name and call.name):
            call = self._by_index[key] = PartialCall()
            self.calls.append(call)
        return call

"""A tool of a server, as it may be offered to the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool of a server.

    input_schema  a schema that the engine's grammars accept
    read_only     whether a call changes nothing, so that it may be repeated: only a trusted server's word counts
    idempotent    whether a repeated call has no further effect; likewise
    changed       whether its definition differs from the one that was pinned: a call needs an approval
    digest        of its definition, which a person approves
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: Mapping[str, Any] = field(default_factory=dict)
    read_only: bool = False
    idempotent: bool = False
    changed: bool = False
    digest: str = ""

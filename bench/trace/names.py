"""Names of statements, scripts and commands: a statement has the name of its constant."""

import importlib
import pkgutil
from functools import cache
from typing import Any

import models

#: The longest name of a statement that is no constant, in characters.
LONGEST = 24


def name_of(request: Any) -> str:
    """`attempts.CLAIM` of a statement, `journal.APPEND` of a script, `XREAD` of a command, `COMMIT` of a bare one."""
    if isinstance(request, (tuple, list)):
        command = text(request[0])
        return scripts().get(text(request[1]), command) if command in ("EVALSHA", "EVAL") else command
    statement = text(request)
    return constants().get(statement) or " ".join(statement.split())[:LONGEST]


def text(value: Any) -> str:
    """Return a value as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


@cache
def constants() -> dict[str, str]:
    """Return the name of each statement in `models`."""
    named: dict[str, str] = {}
    for module in pkgutil.walk_packages(models.__path__, "models."):
        if not module.ispkg:
            short = module.name.rpartition(".")[2]
            for name, value in vars(importlib.import_module(module.name)).items():
                if name.isupper() and isinstance(value, str) and " " in value:
                    named.setdefault(value, f"{short}.{name}")
    return named


@cache
def scripts() -> dict[str, str]:
    """Return the name of each script, by its hash."""
    from models.access import rate_limits
    from models.journal import journal

    return {journal.APPEND_SHA: "journal.APPEND", rate_limits.DRAW_SHA: "rate_limits.DRAW"}

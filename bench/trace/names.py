"""Names of what goes over the wire: a statement is called as the constant of the module that it stands in."""

import importlib
import pkgutil
from functools import cache
from typing import Any

import models

#: The longest name of a statement that stands nowhere.
LONGEST = 24


def name_of(said: Any) -> str:
    """`attempts.CLAIM` of a statement, `journal.APPEND` of a script, `XREAD` of a command, `COMMIT` of a bare one."""
    if isinstance(said, (tuple, list)):
        command = text(said[0])
        return scripts().get(text(said[1]), command) if command in ("EVALSHA", "EVAL") else command
    statement = text(said)
    return constants().get(statement) or " ".join(statement.split())[:LONGEST]


def text(said: Any) -> str:
    """As text."""
    return said.decode() if isinstance(said, bytes) else str(said)


@cache
def constants() -> dict[str, str]:
    """Statement → name, of all that models has."""
    named: dict[str, str] = {}
    for module in pkgutil.walk_packages(models.__path__, "models."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.isupper() and isinstance(value, str) and " " in value:
                named.setdefault(value, f"{module.name.rpartition('.')[2]}.{name}")
    return named


@cache
def scripts() -> dict[str, str]:
    """A script's hash → name."""
    from models.access import rate_limits
    from models.journal import journal

    return {journal.APPEND_SHA: "journal.APPEND", rate_limits.DRAW_SHA: "rate_limits.DRAW"}

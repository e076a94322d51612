"""Choose the memory space of a turn: that of the end user whom the request names, or the caller's own.

`memory.space` names the end user, else `safety_identifier`, else `user`. Without a name the turn of a logged-in user,
or of an API key with `memory: owner`, uses the user's own memories. Other keys then have none: several people may use
one key, and would share them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.accounts.accounts import Caller
from models.platform.errors import InvalidRequest
from pipelines.chat.new_turn import NewTurn

#: The memory options of a turn without memory. Earlier versions understand them, too.
NO_MEMORY: Mapping[str, bool] = {"recall": False, "remember": False}


def with_space(turn: NewTurn, caller: Caller, *, named_spaces: bool) -> NewTurn:
    """Return the turn with the space that its request names, or without memory if it has none.

    named_spaces  whether every process knows spaces of end users; until then their turns have no memory

    Raises InvalidRequest if the request asks for memories, and neither names an end user nor may use the user's own.
    """
    name = space_name(turn.request)
    if name and named_spaces:
        return replace(turn, space=name)
    if not name and caller.memory == "owner":
        return turn
    if not name:
        _check_not_asked(turn.request)
    return replace(turn, request={**turn.request, "memory": {**(turn.request.get("memory") or {}), **NO_MEMORY}})


def space_name(request: Mapping[str, Any]) -> str:
    """Return the name of the end user of a turn's request; empty if it has none."""
    names = ((request.get("memory") or {}).get("space"), request.get("safety_identifier"), request.get("user"))
    return next((name for name in names if name and name.strip()), "")


def _check_not_asked(request: Mapping[str, Any]) -> None:
    for option in NO_MEMORY:
        if (request.get("memory") or {}).get(option):
            raise InvalidRequest(
                f"Unsupported value for 'memory.{option}': true. This API key keeps the memories of each end user "
                "apart: name the end user in 'memory.space', 'safety_identifier' or 'user'.",
                param=f"memory.{option}",
                code="space_required",
            )

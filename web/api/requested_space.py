"""The space that a request of the memory API names."""

from typing import Annotated

from pydantic import Field

from models.accounts.accounts import Caller
from models.memory.spaces import MAX_NAME, SINCE, SpaceKey
from models.platform.errors import InvalidRequest, Unavailable
from web.api.platform import Platform
from web.api.request import Request
from web.http.queries import RequestQuery, parse_query

#: The name of an end user.
SpaceName = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class InSpace(RequestQuery):
    """The query of a request on memories. `space` names the end user; without it, the memories are the user's own."""

    space: SpaceName | None = None


def queried_space(request: Request) -> SpaceKey:
    """Return the space of a request whose query has only `space`. Raises as `requested_space`."""
    return requested_space(request, parse_query(request.query, InSpace).space)


def requested_space(request: Request, name: str | None) -> SpaceKey:
    """Return the space with the name in a request.

    Raises InvalidRequest if the caller's key has no memories without a name, and Unavailable for a name while processes
    of an earlier version may run.
    """
    caller = request.caller
    check_space(request.platform, caller, name, "space")
    return SpaceKey(caller.account_id, caller.user_id, name or "")


def check_space(platform: Platform, caller: Caller, name: str | None, param: str) -> None:
    """Raise InvalidRequest or Unavailable unless the caller may use the space with this name."""
    if name is None and caller.memory == "named":
        raise InvalidRequest(
            f"Missing required parameter: '{param}'. This API key keeps the memories of each end user apart: name the "
            "end user.",
            param=param,
            code="space_required",
        )
    if name is not None and not platform.compatibility.at_least(SINCE):
        raise Unavailable("Memories of end users are available once the upgrade of this server is finalized.")

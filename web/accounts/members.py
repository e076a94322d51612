"""`/v1/account/members`: who belongs to the account, in which role."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import members as records
from models.accounts.accounts import Role
from models.accounts.members import Member
from pipelines.accounts import members
from web.accounts.me import RoleName
from web.http import bodies
from web.http.answers import json_answer
from web.http.paging import Listing, paged
from web.http.validation import Body, parse_query
from web.routing import Call


class ChangeMember(Body):
    """The body of `PATCH /v1/account/members/{user_id}`."""

    role: RoleName


class MemberObject(TypedDict):
    """A member; `id` is the user's, `created_at` since when they belong."""

    id: str
    object: Literal["member"]
    email: str
    name: str
    role: RoleName
    created_at: int


class RemovedMember(TypedDict):
    """Somebody who belongs no more."""

    id: str
    object: Literal["member.deleted"]
    deleted: bool


def list_members(call: Call) -> Response:
    """`GET /v1/account/members`: in the order in which their users came to be."""
    query = parse_query(call.query, Listing)
    with call.platform.database.connection() as connection:
        found = records.page(connection, call.caller.account_id, after=query.after, limit=query.wanted)
    return paged(found, query.limit, _object)


def change(call: Call) -> Response:
    """`PATCH /v1/account/members/{user_id}`: another role, from the next request on."""
    body = bodies.parse(call.body, ChangeMember)
    changed = members.change_role(
        call.platform.database, call.caller, call.path["user_id"], Role(body.role), call.trail
    )
    return json_answer(_object(changed))


def remove(call: Call) -> Response:
    """`DELETE /v1/account/members/{user_id}`: they come in no more, nor do their keys. Who names themselves leaves."""
    user_id = call.path["user_id"]
    members.remove(call.platform.database, call.caller, user_id, call.trail)
    removed: RemovedMember = {"id": user_id, "object": "member.deleted", "deleted": True}
    return json_answer(removed)


def _object(member: Member) -> MemberObject:
    return {
        "id": member.user_id,
        "object": "member",
        "email": member.email,
        "name": member.name,
        "role": member.role.value,
        "created_at": int(member.created_at.timestamp()),
    }

"""`/v1/account/members`: list members, change their roles and remove them."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import members as member_records
from models.accounts.accounts import Role
from models.accounts.members import Member
from pipelines.accounts import members
from pipelines.requests.validation import RequestBody
from web.api.accounts.me import RoleName
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response


class UpdateMember(RequestBody):
    """The body of `PATCH /v1/account/members/{user_id}`."""

    role: RoleName


class MemberObject(TypedDict):
    """A member of the account. `id` is the user's, `created_at` the time when they joined."""

    id: str
    object: Literal["member"]
    email: str
    name: str
    role: RoleName
    created_at: int


class MemberDeleted(TypedDict):
    """A removed member."""

    id: str
    object: Literal["member.deleted"]
    deleted: bool


def list_members(request: Request) -> Response:
    """`GET /v1/account/members`: list the members, oldest user first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        records = member_records.page(connection, request.caller.account_id, after=query.after, limit=query.fetch_limit)
    return page_response(records, query.limit, _member_object)


def update(request: Request) -> Response:
    """`PATCH /v1/account/members/{user_id}`: change a member's role, effective from the next request."""
    body = bodies.parse(request.body, UpdateMember)
    member = members.change_role(
        request.platform.database, request.caller, request.path_params["user_id"], Role(body.role), request.origin
    )
    return json_response(_member_object(member))


def remove(request: Request) -> Response:
    """`DELETE /v1/account/members/{user_id}`: remove a member and revoke their API keys for the account.

    Members can remove themselves.
    """
    user_id = request.path_params["user_id"]
    members.remove(request.platform.database, request.caller, user_id, request.origin)
    removed: MemberDeleted = {"id": user_id, "object": "member.deleted", "deleted": True}
    return json_response(removed)


def _member_object(member: Member) -> MemberObject:
    return {
        "id": member.user_id,
        "object": "member",
        "email": member.email,
        "name": member.name,
        "role": member.role.value,
        "created_at": int(member.created_at.timestamp()),
    }

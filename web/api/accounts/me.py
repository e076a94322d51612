"""`/v1/me`: read and update the authenticated user."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import emails, members
from models.accounts.accounts import Role
from models.accounts.emails import UserProfile
from models.accounts.members import JoinedAccount
from pipelines.requests.validation import RequestBody
from web.api.accounts.names import PublicName
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response

RoleName = Literal["owner", "admin", "member"]


class UpdateUser(RequestBody):
    """The body of `PATCH /v1/me`. Omitted fields stay unchanged."""

    name: PublicName | None = None


class MembershipObject(TypedDict):
    """A membership of the user; `id` is the account's."""

    id: str
    object: Literal["membership"]
    name: str
    role: RoleName
    created_at: int


class UserObject(TypedDict):
    """A user. `account_id` is the account of the request's credentials, and `role` the user's role in it."""

    id: str
    object: Literal["user"]
    email: str
    email_verified: bool
    name: str
    operator: bool
    account_id: str
    role: RoleName
    memberships: list[MembershipObject]


def read(request: Request) -> Response:
    """`GET /v1/me`: read the user of the access token or API key."""
    with request.platform.database.connection() as connection:
        user = emails.read_user(connection, request.caller.user_id)
        memberships = members.joined_accounts(connection, request.caller.user_id)
    assert user is not None, "the gate has just read it"
    return json_response(_user_object(user, memberships, request.caller.account_id, request.caller.role))


def update(request: Request) -> Response:
    """`PATCH /v1/me`: rename the user."""
    body = bodies.parse(request.body, UpdateUser)
    if body.name is not None:
        with request.platform.database.connection() as connection:
            emails.rename(connection, request.caller.user_id, body.name)
    return read(request)


def _user_object(user: UserProfile, memberships: list[JoinedAccount], account_id: str, role: Role) -> UserObject:
    return {
        "id": user.id,
        "object": "user",
        "email": user.email,
        "email_verified": user.verified,
        "name": user.name,
        "operator": user.operator,
        "account_id": account_id,
        "role": role.value,
        "memberships": [_membership_object(membership) for membership in memberships],
    }


def _membership_object(membership: JoinedAccount) -> MembershipObject:
    return {
        "id": membership.account_id,
        "object": "membership",
        "name": membership.account_name,
        "role": membership.role.value,
        "created_at": int(membership.created_at.timestamp()),
    }

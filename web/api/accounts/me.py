"""`/v1/me`: who asks, and where they belong."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import emails, members
from models.accounts.accounts import Role
from models.accounts.emails import UserProfile
from models.accounts.members import JoinedAccount
from web.api.accounts.names import PublicName
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response
from web.http.validation import Body

RoleName = Literal["owner", "admin", "member"]


class UpdateUser(Body):
    """The body of `PATCH /v1/me`; what is left out stays."""

    name: PublicName | None = None


class MembershipObject(TypedDict):
    """An account that the person belongs to; `id` is the account's."""

    id: str
    object: Literal["membership"]
    name: str
    role: RoleName
    created_at: int


class UserObject(TypedDict):
    """A person: `account_id` is the account that the token or key is for, one of `memberships`."""

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
    """`GET /v1/me`."""
    with request.platform.database.connection() as connection:
        person = emails.read_user(connection, request.caller.user_id)
        places = members.joined_accounts(connection, request.caller.user_id)
    assert person is not None, "the gate has just seen them"
    return json_response(_user_object(person, places, request.caller.account_id, request.caller.role))


def change(request: Request) -> Response:
    """`PATCH /v1/me`: another name."""
    body = bodies.parse(request.body, UpdateUser)
    if body.name is not None:
        with request.platform.database.connection() as connection:
            emails.rename(connection, request.caller.user_id, body.name)
    return read(request)


def _user_object(person: UserProfile, places: list[JoinedAccount], account_id: str, role: Role) -> UserObject:
    return {
        "id": person.id,
        "object": "user",
        "email": person.email,
        "email_verified": person.verified,
        "name": person.name,
        "operator": person.operator,
        "account_id": account_id,
        "role": role.value,
        "memberships": [_membership_object(place) for place in places],
    }


def _membership_object(place: JoinedAccount) -> MembershipObject:
    return {
        "id": place.account_id,
        "object": "membership",
        "name": place.account_name,
        "role": place.role.value,
        "created_at": int(place.created_at.timestamp()),
    }

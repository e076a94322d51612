"""`/v1/account/invitations`: create, list and revoke invitations; `/auth/invitations/accept`: accept one."""

from functools import partial
from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import invitations as invitation_records
from models.accounts.accounts import Role
from models.accounts.invitations import Invitation
from pipelines.accounts import invitations
from pipelines.accounts.invitations import Invitee
from pipelines.accounts.signup_policy import SignupPolicy
from pipelines.requests.validation import RequestBody
from web.api.accounts.email_links import EmailToken
from web.api.accounts.me import RoleName
from web.api.accounts.names import PublicName
from web.api.accounts.signup import Email, Password, tokens_response
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.threads import run_in_thread


class CreateInvitation(RequestBody):
    """The body of `POST /v1/account/invitations`."""

    email: Email
    role: RoleName = "member"


class AcceptInvitation(RequestBody):
    """The body of `POST /auth/invitations/accept`. Without an access token in the Authorization header `password` is
    required: the password of the invited address's user, or the one of the user to create."""

    token: EmailToken
    password: Password | None = None
    name: PublicName | None = None


class InvitationObject(TypedDict):
    """An invitation, which can be accepted until `expires_at`. Times are in Unix seconds."""

    id: str
    object: Literal["invitation"]
    email: str
    role: RoleName
    invited_by: str | None
    created_at: int
    expires_at: int


class InvitationDeleted(TypedDict):
    """A revoked invitation."""

    id: str
    object: Literal["invitation.deleted"]
    deleted: bool


def create(request: Request) -> Response:
    """`POST /v1/account/invitations`: invite an e-mail address; this revokes its earlier invitation."""
    body = bodies.parse(request.body, CreateInvitation)
    invitation = invitations.invite(
        request.platform.database,
        request.caller,
        request.new_id("inv"),
        email=body.email,
        role=Role(body.role),
        origin=request.origin,
    )
    request.platform.queue.nudge()
    return json_response(_invitation_object(invitation), 201)


def list_invitations(request: Request) -> Response:
    """`GET /v1/account/invitations`: list the pending invitations, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        records = invitation_records.list_pending(
            connection, request.caller.account_id, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, _invitation_object)


def revoke(request: Request) -> Response:
    """`DELETE /v1/account/invitations/{id}`: revoke an invitation."""
    invitation_id = request.path_params["invitation_id"]
    invitations.revoke(request.platform.database, request.caller, invitation_id, request.origin)
    revoked: InvitationDeleted = {"id": invitation_id, "object": "invitation.deleted", "deleted": True}
    return json_response(revoked)


async def accept(request: Request) -> Response:
    """`POST /auth/invitations/accept`: join the account and get tokens for it."""
    body = bodies.parse(request.body, AcceptInvitation)
    invitee = Invitee(await run_in_thread(request.authenticate_user), body.password, body.name or "")
    platform = request.platform
    accept_invitation = partial(
        invitations.accept,
        platform.database,
        platform.tokens,
        platform.login_limiter,
        body.token,
        invitee,
        request.origin,
        SignupPolicy.of(platform.settings),
    )
    return tokens_response(
        await (run_in_thread(accept_invitation) if invitee.caller else platform.hashing.run(accept_invitation))
    )


def _invitation_object(invitation: Invitation) -> InvitationObject:
    return {
        "id": invitation.id,
        "object": "invitation",
        "email": invitation.email,
        "role": invitation.role.value,
        "invited_by": invitation.invited_by,
        "created_at": int(invitation.created_at.timestamp()),
        "expires_at": int(invitation.expires_at.timestamp()),
    }

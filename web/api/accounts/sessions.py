"""`/auth/…` and `/v1/me/sessions`: refresh, list and end sessions, and change the password."""

from functools import partial
from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.access import sessions as session_records
from models.access.sessions import Session
from models.platform.errors import NotFound
from pipelines.accounts import sessions
from pipelines.requests.validation import RequestBody
from web.api.accounts.signup import Password, tokens_response
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response


class RefreshSession(RequestBody):
    """The body of `POST /auth/refresh`. `account` is the id of another account of the user to switch to."""

    refresh_token: str = Field(max_length=200)
    account: str | None = Field(None, max_length=64)


class ChangePassword(RequestBody):
    """The body of `POST /auth/password/change`."""

    current_password: Password
    new_password: Password


class SessionObject(TypedDict):
    """An active session. `current` marks the session of this request; times are in Unix seconds."""

    id: str
    object: Literal["session"]
    current: bool
    user_agent: str
    ip: str
    created_at: int
    last_used_at: int
    expires_at: int


class SessionDeleted(TypedDict):
    """An ended session, whose tokens are no longer valid."""

    id: str
    object: Literal["session.deleted"]
    deleted: bool


class SessionsDeleted(TypedDict):
    """The number of sessions that were ended."""

    object: Literal["sessions.deleted"]
    deleted: int


def refresh(request: Request) -> Response:
    """`POST /auth/refresh`: exchange a refresh token for new tokens.

    A refresh token is valid once. Within ten seconds of its use the same client gets the same next refresh token again;
    later its reuse ends the session.
    """
    body = bodies.parse(request.body, RefreshSession)
    tokens = sessions.refresh(
        request.platform.database,
        request.platform.tokens,
        body.refresh_token,
        account_id=body.account,
        origin=request.origin,
    )
    return tokens_response(tokens)


def logout(request: Request) -> Response:
    """`POST /auth/logout`: end the current session; its tokens are rejected from now on."""
    session_id = request.caller.session_id or ""
    sessions.log_out(request.platform.database, request.caller, session_id, request.origin)
    return _session_deleted(session_id)


def logout_all(request: Request) -> Response:
    """`POST /auth/logout_all`: end all sessions of the user, including the current one."""
    return _sessions_deleted(sessions.log_out_everywhere(request.platform.database, request.caller, request.origin))


async def change_password(request: Request) -> Response:
    """`POST /auth/password/change`: change the password and end all other sessions."""
    body = await bodies.parse_off_loop(request.body, ChangePassword)
    change = partial(
        sessions.change_password,
        request.platform.database,
        request.platform.login_limiter,
        request.caller,
        current=body.current_password,
        new=body.new_password,
        origin=request.origin,
    )
    ended = await request.platform.hashing.run(change)
    request.platform.queue.nudge()
    return _sessions_deleted(ended)


def list_sessions(request: Request) -> Response:
    """`GET /v1/me/sessions`: list the user's active sessions, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        records = session_records.list_active(
            connection, request.caller.user_id, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, partial(_session_object, current=request.caller.session_id))


def revoke(request: Request) -> Response:
    """`DELETE /v1/me/sessions/{id}`: end a session of the user; its tokens are rejected from now on."""
    session_id = request.path_params["session_id"]
    if not sessions.log_out(request.platform.database, request.caller, session_id, request.origin):
        raise NotFound(f"Session with id '{session_id}' not found.", param="session_id")
    return _session_deleted(session_id)


def _session_object(session: Session, current: str | None) -> SessionObject:
    return {
        "id": session.id,
        "object": "session",
        "current": session.id == current,
        "user_agent": session.user_agent,
        "ip": session.ip,
        "created_at": int(session.created_at.timestamp()),
        "last_used_at": int(session.last_used_at.timestamp()),
        "expires_at": int(session.expires_at.timestamp()),
    }


def _session_deleted(session_id: str) -> Response:
    deleted: SessionDeleted = {"id": session_id, "object": "session.deleted", "deleted": True}
    return json_response(deleted)


def _sessions_deleted(count: int) -> Response:
    deleted: SessionsDeleted = {"object": "sessions.deleted", "deleted": count}
    return json_response(deleted)

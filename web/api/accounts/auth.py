"""`/auth/…` and `/v1/me/sessions`: how a login goes on, and how it ends."""

from functools import partial
from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.access import sessions as records
from models.access.sessions import Session
from models.platform.errors import NotFound
from pipelines.accounts import sessions
from web.api.accounts.signup import Password, tokens_response
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.responses import json_response
from web.http.validation import Body, parse_query


class RefreshSession(Body):
    """The body of `POST /auth/refresh`; `account` changes to another account of the person."""

    refresh_token: str = Field(max_length=200)
    account: str | None = Field(None, max_length=64)


class ChangePassword(Body):
    """The body of `POST /auth/password/change`."""

    current_password: Password
    new_password: Password


class SessionObject(TypedDict):
    """A login that lives; `current` is the one that asks."""

    id: str
    object: Literal["session"]
    current: bool
    user_agent: str
    ip: str
    created_at: int
    last_used_at: int
    expires_at: int


class DeletedSession(TypedDict):
    """A session whose tokens hold no more."""

    id: str
    object: Literal["session.deleted"]
    deleted: bool


class DeletedSessions(TypedDict):
    """How many sessions ended."""

    object: Literal["sessions.deleted"]
    deleted: int


def refresh(request: Request) -> Response:
    """`POST /auth/refresh`: the next tokens. A refresh token is good once: shown again, it ends its session."""
    body = bodies.parse(request.body, RefreshSession)
    entry = sessions.refresh(
        request.platform.database,
        request.platform.tokens,
        body.refresh_token,
        account_id=body.account,
        origin=request.origin,
    )
    return tokens_response(entry)


def logout(request: Request) -> Response:
    """`POST /auth/logout`: end this session, at once."""
    session_id = request.caller.session_id or ""
    sessions.log_out(request.platform.database, request.caller, session_id, request.origin)
    return _deleted_session(session_id)


def logout_all(request: Request) -> Response:
    """`POST /auth/logout_all`: end all sessions of the person, this one too."""
    return _deleted_sessions(sessions.log_out_everywhere(request.platform.database, request.caller, request.origin))


async def change_password(request: Request) -> Response:
    """`POST /auth/password/change`: another password; all other sessions end."""
    body = bodies.parse(request.body, ChangePassword)
    work = partial(
        sessions.change_password,
        request.platform.database,
        request.platform.login_limiter,
        request.caller,
        current=body.current_password,
        new=body.new_password,
        origin=request.origin,
    )
    ended = await request.platform.hashing.run(work)
    request.platform.queue.nudge()
    return _deleted_sessions(ended)


def list_sessions(request: Request) -> Response:
    """`GET /v1/me/sessions`: the person's sessions that live, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        found = records.list_active(connection, request.caller.user_id, after=query.after, limit=query.fetch_limit)
    return page_response(found, query.limit, partial(_session_object, current=request.caller.session_id))


def revoke(request: Request) -> Response:
    """`DELETE /v1/me/sessions/{id}`: end a session of the person's, at once."""
    session_id = request.path_params["session_id"]
    if not sessions.log_out(request.platform.database, request.caller, session_id, request.origin):
        raise NotFound(f"Session with id '{session_id}' not found.", param="session_id")
    return _deleted_session(session_id)


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


def _deleted_session(session_id: str) -> Response:
    answer: DeletedSession = {"id": session_id, "object": "session.deleted", "deleted": True}
    return json_response(answer)


def _deleted_sessions(count: int) -> Response:
    answer: DeletedSessions = {"object": "sessions.deleted", "deleted": count}
    return json_response(answer)

"""Signing up and logging in, and the keys that verify our tokens."""

from functools import partial
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.access import signing_keys
from models.platform.errors import Unavailable
from pipelines.accounts.sessions import SessionTokens
from pipelines.accounts.signup import log_in, sign_up
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response
from web.http.validation import Body

Email = Annotated[str, Field(max_length=320, examples=["ada@example.com"])]
Password = Annotated[str, Field(max_length=4096, examples=["a quiet sentence of mine"])]


class SignUp(Body):
    """The body of `POST /signup`."""

    email: Email
    password: Password


class LogIn(Body):
    """The body of `POST /login`; `account` chooses among several."""

    email: Email
    password: Password
    account: str | None = Field(None, max_length=64)


class AuthenticatedUser(TypedDict):
    """Who came in."""

    id: str
    email: str


class AuthenticatedAccount(TypedDict):
    """Where they are, and as what."""

    id: str
    role: Literal["owner", "admin", "member"]


class AuthTokens(TypedDict):
    """An access token that holds `expires_in` seconds, and the refresh token that gives the next pair, once."""

    token: str
    token_type: Literal["bearer"]
    expires_in: int
    refresh_token: str
    user: AuthenticatedUser
    account: AuthenticatedAccount


class PublicKey(TypedDict):
    """A public key (RFC 7517, RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    alg: str
    use: str
    key_ops: NotRequired[list[str]]


class PublicKeys(TypedDict):
    """The keys whose tokens are taken."""

    keys: list[PublicKey]


async def signup(request: Request) -> Response:
    """`POST /signup`: a new user with an account of their own, and their first tokens.

    A known address looks the same: whoever has its password is let in, anybody else becomes a user who claims it too.
    """
    body = bodies.parse(request.body, SignUp)
    house = request.platform
    work = partial(sign_up, house.database, house.tokens, house.login_limiter, email=body.email, password=body.password)
    entry = await house.hashing.run(partial(work, origin=request.origin))
    house.queue.nudge()
    return tokens_response(entry, 201)


async def login(request: Request) -> Response:
    """`POST /login`: tokens for a known user."""
    body = bodies.parse(request.body, LogIn)
    house = request.platform
    work = partial(log_in, house.database, house.tokens, house.login_limiter, email=body.email, password=body.password)
    return tokens_response(await house.hashing.run(partial(work, account_id=body.account, origin=request.origin)))


def jwks(request: Request) -> Response:
    """`GET /.well-known/jwks.json`: the public keys (RFC 7517). Without the database, those that this process knows."""
    try:
        with request.platform.database.connection() as connection:
            request.platform.tokens.set_generations(signing_keys.valid_generations(connection))
    except Unavailable:
        pass
    return json_response(request.platform.tokens.jwks(), headers={"cache-control": "public, max-age=300"})


def tokens_response(entry: SessionTokens, status: int = 200) -> Response:
    """What lets somebody in, as an answer that no cache keeps."""
    answer: AuthTokens = {
        "token": entry.access_token,
        "token_type": "bearer",
        "expires_in": entry.expires_in,
        "refresh_token": entry.refresh_token,
        "user": {"id": entry.caller.user_id, "email": entry.email},
        "account": {"id": entry.caller.account_id, "role": entry.caller.role.value},
    }
    return json_response(answer, status, {"cache-control": "no-store"})

"""`/signup`, `/login`, and the public keys that verify access tokens."""

from functools import partial
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.access import signing_keys
from models.platform.errors import Unavailable
from pipelines.accounts.sessions import SessionTokens
from pipelines.accounts.signup import log_in, sign_up
from pipelines.accounts.signup_policy import SignupPolicy
from pipelines.requests.validation import RequestBody
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response

Email = Annotated[str, Field(max_length=320, examples=["ada@example.com"])]
Password = Annotated[str, Field(max_length=4096, examples=["a quiet sentence of mine"])]


class SignUp(RequestBody):
    """The body of `POST /signup`."""

    email: Email
    password: Password


class LogIn(RequestBody):
    """The body of `POST /login`. `account` is the id of the account to log in to, for users with several."""

    email: Email
    password: Password
    account: str | None = Field(None, max_length=64)


class AuthenticatedUser(TypedDict):
    """The user who logged in."""

    id: str
    email: str


class AuthenticatedAccount(TypedDict):
    """The account that the tokens are for, and the user's role in it."""

    id: str
    role: Literal["owner", "admin", "member"]


class AuthTokens(TypedDict):
    """An access token, valid for `expires_in` seconds, and a refresh token, valid once, for the next tokens."""

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
    """The public keys of valid access tokens (RFC 7517)."""

    keys: list[PublicKey]


async def signup(request: Request) -> Response:
    """`POST /signup`: create a user with an account and return tokens.

    The response does not reveal whether the address is known: with its user's password it is a login, with another one
    it creates another user with the same, unverified address. Until the address is verified, the account has the plan
    `unverified`. `SANGHA_SIGNUP` and `SANGHA_SIGNUP_DOMAINS` limit who may sign up (403).
    """
    body = bodies.parse(request.body, SignUp)
    platform = request.platform
    create_user = partial(
        sign_up, platform.database, platform.tokens, platform.login_limiter, email=body.email, password=body.password
    )
    tokens = await platform.hashing.run(
        partial(create_user, origin=request.origin, policy=SignupPolicy.of(platform.settings))
    )
    platform.queue.nudge()
    return tokens_response(tokens, 201)


async def login(request: Request) -> Response:
    """`POST /login`: log in with e-mail address and password."""
    body = bodies.parse(request.body, LogIn)
    platform = request.platform
    log_in_user = partial(
        log_in, platform.database, platform.tokens, platform.login_limiter, email=body.email, password=body.password
    )
    return tokens_response(
        await platform.hashing.run(partial(log_in_user, account_id=body.account, origin=request.origin))
    )


def jwks(request: Request) -> Response:
    """`GET /.well-known/jwks.json`: list the public keys that verify access tokens (RFC 7517)."""
    try:
        with request.platform.database.connection() as connection:
            request.platform.tokens.set_generations(signing_keys.valid_generations(connection))
    except Unavailable:
        pass
    return json_response(request.platform.tokens.jwks(), headers={"cache-control": "public, max-age=300"})


def tokens_response(tokens: SessionTokens, status: int = 200) -> Response:
    """Return a session's tokens as a response that is not cached."""
    body: AuthTokens = {
        "token": tokens.access_token,
        "token_type": "bearer",
        "expires_in": tokens.expires_in,
        "refresh_token": tokens.refresh_token,
        "user": {"id": tokens.caller.user_id, "email": tokens.email},
        "account": {"id": tokens.caller.account_id, "role": tokens.caller.role.value},
    }
    return json_response(body, status, {"cache-control": "no-store"})

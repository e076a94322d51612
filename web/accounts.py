"""Signing up and logging in, and the keys that verify our tokens."""

from pydantic import Field
from starlette.responses import Response

from pipelines.accounts.signup import Entry, log_in, sign_up
from web import bodies
from web.answers import json_answer
from web.routing import Call
from web.validation import Body


class SignUp(Body):
    """The body of `POST /signup`."""

    email: str = Field(max_length=320)
    password: str = Field(max_length=4096)


class LogIn(Body):
    """The body of `POST /login`; `account` chooses among several."""

    email: str = Field(max_length=320)
    password: str = Field(max_length=4096)
    account: str | None = Field(None, max_length=64)


def signup(call: Call) -> Response:
    """`POST /signup`: a new user with an account of their own, and a token."""
    body = bodies.parse(call.body, SignUp)
    entry = sign_up(call.platform.database, call.platform.tokens, email=body.email, password=body.password)
    return _entered(entry, 201)


def login(call: Call) -> Response:
    """`POST /login`: a token for a known user."""
    body = bodies.parse(call.body, LogIn)
    entry = log_in(
        call.platform.database,
        call.platform.tokens,
        email=body.email,
        password=body.password,
        account_id=body.account,
    )
    return _entered(entry, 200)


async def jwks(call: Call) -> Response:
    """`GET /.well-known/jwks.json`: the public keys (RFC 7517)."""
    return json_answer(call.platform.tokens.jwks(), headers={"cache-control": "public, max-age=300"})


def _entered(entry: Entry, status: int) -> Response:
    answer = {
        "token": entry.token,
        "token_type": "bearer",
        "expires_in": entry.expires_in,
        "user": {"id": entry.caller.user_id, "email": entry.email},
        "account": {"id": entry.caller.account_id, "role": entry.caller.role},
    }
    return json_answer(answer, status, {"cache-control": "no-store"})

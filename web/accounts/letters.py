"""`/auth/email/…` and `/auth/password/…`: what the links in letters lead to, and asking for such letters.

A link leads to a page with a button: programs that look at links before people do must not use them up.
"""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from typing_extensions import TypedDict

from pipelines.accounts import email_verification, password_reset
from pipelines.accounts.email_verification import SignupCredentials
from pipelines.accounts.login_limits import LoginAttempt
from pipelines.accounts.signup import normalize_email
from web import home
from web.accounts.signup import Email, Password
from web.http import bodies
from web.http.answers import json_answer
from web.http.validation import Body
from web.routing import Call

#: What stands behind `?token=` in a letter.
Secret = Annotated[str, Field(min_length=1, max_length=200)]


class Verify(Body):
    """The body of `POST /auth/email/verify`; `password` unless whoever signed up has logged in."""

    token: Secret
    password: Password | None = None


class Forgot(Body):
    """The body of `POST /auth/password/forgot`."""

    email: Email


class Reset(Body):
    """The body of `POST /auth/password/reset`."""

    token: Secret
    password: Password


class Verified(TypedDict):
    """An address that belongs to its user now."""

    object: Literal["email"]
    email: str
    email_verified: bool


class Posted(TypedDict):
    """A letter that will be sent, if there is somebody to send it to."""

    object: Literal["letter"]
    accepted: bool


async def verify(call: Call) -> Response:
    """`POST /auth/email/verify`: the address is the user's from now on.

    Besides the letter's `token` it takes the user: their `password`, or the `Authorization` of a session of theirs.
    """
    body = bodies.parse(call.body, Verify)
    caller = await run_in_threadpool(call.identify) if body.password is None else None
    house, claimant = call.platform, SignupCredentials(body.password, caller)
    work = partial(email_verification.verify, house.database, house.login_limiter, body.token, claimant, call.trail)
    proof = await (run_in_threadpool(work) if body.password is None else house.hashing.run(work))
    return _verified(proof.email)


def resend(call: Call) -> Response:
    """`POST /auth/email/resend`: the letter once more, unless there is nothing to prove."""
    call.platform.login_limiter.count_attempt(LoginAttempt(f"resend {call.caller.user_id}", call.ip))
    accepted = email_verification.resend(call.platform.database, call.caller)
    return _posted(call, accepted)


def forgot(call: Call) -> Response:
    """`POST /auth/password/forgot`: a letter, if somebody has the address. The answer is the same if nobody has."""
    address = normalize_email(bodies.parse(call.body, Forgot).email)
    call.platform.login_limiter.count_attempt(LoginAttempt(f"forgot {address.lower()}", call.ip))
    password_reset.request_reset(call.platform.database, address)
    return _posted(call, True)


async def set_password(call: Call) -> Response:
    """`POST /auth/password/reset`: a new password, by the secret of a letter; all sessions end."""
    body = bodies.parse(call.body, Reset)
    work = partial(password_reset.set_password, call.platform.database, body.token, body.password, call.trail)
    proof = await call.platform.hashing.run(work)
    call.platform.queue.nudge()
    return _verified(proof.email)


def page(call: Call) -> Response:
    """`GET /auth/verify`, `/auth/reset` and `/auth/invitation`: the page that the links lead to."""
    return home.serve("auth.html")


def _verified(email: str) -> Response:
    answer: Verified = {"object": "email", "email": email, "email_verified": True}
    return json_answer(answer)


def _posted(call: Call, accepted: bool) -> Response:
    call.platform.queue.nudge()
    answer: Posted = {"object": "letter", "accepted": accepted}
    return json_answer(answer, 202)

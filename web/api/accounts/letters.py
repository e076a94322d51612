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
from web.api.accounts.signup import Email, Password
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response
from web.http.validation import Body

#: What stands behind `?token=` in a letter.
EmailToken = Annotated[str, Field(min_length=1, max_length=200)]


class VerifyEmail(Body):
    """The body of `POST /auth/email/verify`; `password` unless whoever signed up has logged in."""

    token: EmailToken
    password: Password | None = None


class ForgotPassword(Body):
    """The body of `POST /auth/password/forgot`."""

    email: Email


class ResetPassword(Body):
    """The body of `POST /auth/password/reset`."""

    token: EmailToken
    password: Password


class VerifiedEmail(TypedDict):
    """An address that belongs to its user now."""

    object: Literal["email"]
    email: str
    email_verified: bool


class RequestedEmail(TypedDict):
    """A letter that will be sent, if there is somebody to send it to."""

    object: Literal["letter"]
    accepted: bool


async def verify(request: Request) -> Response:
    """`POST /auth/email/verify`: the address is the user's from now on.

    Besides the letter's `token` it takes the user: their `password`, or the `Authorization` of a session of theirs.
    """
    body = bodies.parse(request.body, VerifyEmail)
    caller = await run_in_threadpool(request.authenticate_user) if body.password is None else None
    house, claimant = request.platform, SignupCredentials(body.password, caller)
    work = partial(email_verification.verify, house.database, house.login_limiter, body.token, claimant, request.origin)
    proof = await (run_in_threadpool(work) if body.password is None else house.hashing.run(work))
    return _verified_email(proof.email)


def resend(request: Request) -> Response:
    """`POST /auth/email/resend`: the letter once more, unless there is nothing to prove."""
    request.platform.login_limiter.count_attempt(LoginAttempt(f"resend {request.caller.user_id}", request.ip))
    accepted = email_verification.resend(request.platform.database, request.caller)
    return _requested_email(request, accepted)


def forgot(request: Request) -> Response:
    """`POST /auth/password/forgot`: a letter, if somebody has the address. The answer is the same if nobody has."""
    address = normalize_email(bodies.parse(request.body, ForgotPassword).email)
    request.platform.login_limiter.count_attempt(LoginAttempt(f"forgot {address.lower()}", request.ip))
    password_reset.request_reset(request.platform.database, address)
    return _requested_email(request, True)


async def set_password(request: Request) -> Response:
    """`POST /auth/password/reset`: a new password, by the secret of a letter; all sessions end."""
    body = bodies.parse(request.body, ResetPassword)
    work = partial(password_reset.set_password, request.platform.database, body.token, body.password, request.origin)
    proof = await request.platform.hashing.run(work)
    request.platform.queue.nudge()
    return _verified_email(proof.email)


def _verified_email(email: str) -> Response:
    answer: VerifiedEmail = {"object": "email", "email": email, "email_verified": True}
    return json_response(answer)


def _requested_email(request: Request, accepted: bool) -> Response:
    request.platform.queue.nudge()
    answer: RequestedEmail = {"object": "letter", "accepted": accepted}
    return json_response(answer, 202)

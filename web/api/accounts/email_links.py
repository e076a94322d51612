"""`/auth/email/…` and `/auth/password/…`: request e-mails with links, and use the tokens of those links.

A link opens a page with a button, so that mail scanners that open links do not use their tokens.
"""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from pipelines.accounts import email_verification, password_reset
from pipelines.accounts.email_verification import SignupCredentials
from pipelines.accounts.login_limits import LoginAttempt
from pipelines.accounts.signup import normalize_email
from pipelines.requests.validation import RequestBody
from web.api.accounts.signup import Email, Password
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response
from web.http.threads import run_in_thread

#: The `token` parameter of a link in an e-mail.
EmailToken = Annotated[str, Field(min_length=1, max_length=200)]


class VerifyEmail(RequestBody):
    """The body of `POST /auth/email/verify`. `password` is required unless the request has the user's access token."""

    token: EmailToken
    password: Password | None = None


class ForgotPassword(RequestBody):
    """The body of `POST /auth/password/forgot`."""

    email: Email


class ResetPassword(RequestBody):
    """The body of `POST /auth/password/reset`. API keys stay valid unless `revoke_api_keys`."""

    token: EmailToken
    password: Password
    revoke_api_keys: bool = False


class EmailVerified(TypedDict):
    """A verified e-mail address."""

    object: Literal["email"]
    email: str
    email_verified: bool


class EmailRequested(TypedDict):
    """An accepted request for an e-mail. It is sent only if the address has a user."""

    object: Literal["letter"]
    accepted: bool


async def verify(request: Request) -> Response:
    """`POST /auth/email/verify`: verify the user's e-mail address.

    Requires the `token` of the e-mail and proof of the user who signed up: their `password`, or their access token.
    """
    body = bodies.parse(request.body, VerifyEmail)
    caller = await run_in_thread(request.authenticate_user) if body.password is None else None
    platform, credentials = request.platform, SignupCredentials(body.password, caller)
    verify_email = partial(
        email_verification.verify, platform.database, platform.login_limiter, body.token, credentials, request.origin
    )
    token = await (run_in_thread(verify_email) if body.password is None else platform.hashing.run(verify_email))
    return _email_verified(token.email)


def resend(request: Request) -> Response:
    """`POST /auth/email/resend`: send the verification e-mail again, unless the address is verified."""
    request.platform.login_limiter.count_attempt(LoginAttempt(request.caller.user_id, request.ip, purpose="resend"))
    accepted = email_verification.resend(request.platform.database, request.caller)
    return _email_requested(request, accepted)


def forgot_password(request: Request) -> Response:
    """`POST /auth/password/forgot`: request a password reset e-mail.

    The response does not reveal whether the address has a user.
    """
    email = normalize_email(bodies.parse(request.body, ForgotPassword).email)
    request.platform.login_limiter.count_attempt(LoginAttempt(email.lower(), request.ip, purpose="forgot"))
    password_reset.request_reset(request.platform.database, email)
    return _email_requested(request, True)


async def set_password(request: Request) -> Response:
    """`POST /auth/password/reset`: set a new password with the token of an e-mail, and end all sessions."""
    body = bodies.parse(request.body, ResetPassword)
    set_new_password = partial(
        password_reset.set_password,
        request.platform.database,
        body.token,
        body.password,
        request.origin,
        revoke_api_keys=body.revoke_api_keys,
    )
    token = await request.platform.hashing.run(set_new_password)
    request.platform.queue.nudge()
    return _email_verified(token.email)


def _email_verified(email: str) -> Response:
    verified: EmailVerified = {"object": "email", "email": email, "email_verified": True}
    return json_response(verified)


def _email_requested(request: Request, accepted: bool) -> Response:
    request.platform.queue.nudge()
    requested: EmailRequested = {"object": "letter", "accepted": accepted}
    return json_response(requested, 202)

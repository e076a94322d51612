"""`/auth/oidc`: log in at an OpenID Connect provider.

Errors of the login are shown by the page: the browser is redirected to `/` with the reason in the fragment, which is
neither sent to servers nor part of a referrer.
"""

import logging
from http.cookies import CookieError, SimpleCookie
from typing import Literal

from pydantic import Field
from starlette.responses import RedirectResponse, Response
from typing_extensions import TypedDict

from models.platform.errors import NotAllowed, NotFound
from models.platform.oidc_providers import OidcProvider
from models.platform.texts import truncate
from pipelines.accounts import oidc
from pipelines.accounts.oidc import LoginCode
from pipelines.accounts.signup_policy import SignupPolicy
from pipelines.requests.validation import RequestBody
from web.access.oidc_client import LOGIN_SECONDS, LoginExpired, ProviderFailed
from web.api.accounts.signup import tokens_response
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response, page_object
from web.http.threads import run_in_thread

log = logging.getLogger(__name__)

#: Binds a login to the browser that started it, until the provider redirects back.
LOGIN_COOKIE = "sangha_login"

#: Binds the login code to the browser that the provider redirected back.
CODE_COOKIE = "sangha_pass"


class ExchangeLoginCode(RequestBody):
    """The body of `POST /auth/oidc/exchange`."""

    code: str = Field(max_length=200)


class ProviderObject(TypedDict):
    """An OIDC provider. Open `/auth/oidc/{id}` in a browser to log in with it."""

    id: str
    object: Literal["oidc.provider"]
    name: str


async def list_providers(request: Request) -> Response:
    """`GET /auth/oidc`: list the providers that users can log in with."""
    return json_response(
        page_object([_provider_object(provider) for provider in request.platform.oidc.providers.values()])
    )


async def start_login(request: Request) -> Response:
    """`GET /auth/oidc/{provider}`: redirect the browser to the provider. Raises NotFound."""
    name = _provider_name(request)
    redirect_uri = f"{request.platform.settings.public_address}/auth/oidc/{name}/callback"
    try:
        url, cookie = await request.platform.oidc.begin(name, redirect_uri)
    except ProviderFailed as error:
        log.warning("Cannot start an OIDC login with provider '%s': %s", name, error)
        return _redirect_home("login_error=provider_unavailable")
    response = _redirect(url)
    response.set_cookie(
        LOGIN_COOKIE, cookie, max_age=LOGIN_SECONDS, samesite="lax", **_cookie_options(request, "/auth/oidc")
    )
    return response


async def callback(request: Request) -> Response:
    """`GET /auth/oidc/{provider}/callback`: finish the login and redirect the browser to the page. Raises NotFound."""
    name = _provider_name(request)
    if "error" in request.query:
        reason = "access_denied" if request.query["error"] == "access_denied" else "provider_failed"
        return _end_login(request, _redirect_home(f"login_error={reason}"))
    try:
        claims = await request.platform.oidc.finish(name, request.query, _cookie(request, LOGIN_COOKIE))
        policy = SignupPolicy.of(request.platform.settings)
        user_id = await run_in_thread(oidc.resolve_user, request.platform.database, claims, request.origin, policy)
    except LoginExpired:
        return _end_login(request, _redirect_home("login_error=login_expired"))
    except ProviderFailed as error:
        log.warning("OIDC login with provider '%s' failed: %s", name, error)
        return _end_login(request, _redirect_home("login_error=provider_failed"))
    except NotAllowed as error:
        return _end_login(request, _redirect_home(f"login_error={error.code}"))
    request.platform.queue.nudge()
    login_code = await run_in_thread(oidc.issue_login_code, request.platform.redis, user_id)
    response = _end_login(request, _redirect_home(f"login={login_code.code}"))
    cookie_options = _cookie_options(request, "/auth/oidc/exchange")
    response.set_cookie(
        CODE_COOKIE, login_code.binding, max_age=oidc.EXCHANGE_SECONDS, samesite="strict", **cookie_options
    )
    return response


def exchange(request: Request) -> Response:
    """`POST /auth/oidc/exchange`: exchange the page's login code for tokens.

    The code is valid once, for 60 seconds, in the browser that it was issued to.
    """
    body = bodies.parse(request.body, ExchangeLoginCode)
    login_code = LoginCode(body.code, _cookie(request, CODE_COOKIE))
    platform = request.platform
    return tokens_response(
        oidc.exchange_login_code(platform.database, platform.redis, platform.tokens, login_code, request.origin)
    )


def _provider_name(request: Request) -> str:
    name = request.path_params["provider"]
    if name not in request.platform.oidc.providers:
        raise NotFound(f"OIDC provider '{truncate(name)}' not found.", param="provider")
    return name


def _provider_object(provider: OidcProvider) -> ProviderObject:
    return {"id": provider.name, "object": "oidc.provider", "name": provider.label}


def _redirect_home(fragment: str) -> RedirectResponse:
    """Redirect to the home page. The target never depends on the request, so that it cannot be an open redirect."""
    return _redirect(f"/#{fragment}")


def _redirect(url: str) -> RedirectResponse:
    return RedirectResponse(url, 302, {"cache-control": "no-store", "referrer-policy": "no-referrer"})


def _end_login(request: Request, response: Response) -> Response:
    """Delete the login cookie, after success and failure alike."""
    response.delete_cookie(LOGIN_COOKIE, samesite="lax", **_cookie_options(request, "/auth/oidc"))
    return response


def _cookie_options(request: Request, path: str) -> "CookieOptions":
    secure = request.platform.settings.public_address.startswith("https://")
    return {"path": path, "secure": secure, "httponly": True}


class CookieOptions(TypedDict):
    """Options of `set_cookie` that all cookies of a login share."""

    path: str
    secure: bool
    httponly: bool


def _cookie(request: Request, name: str) -> str:
    try:
        morsel = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""

"""`/auth/oidc`: logging in at a provider, and coming back with a session.

What goes wrong between here and the provider is told on the page, where the person is: they come back to `/` with the
reason in the fragment, which no server sees and no referrer carries.
"""

import logging
from http.cookies import CookieError, SimpleCookie
from typing import Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from typing_extensions import TypedDict

from models.platform.errors import NotAllowed, NotFound
from models.platform.oidc_providers import OidcProvider
from pipelines.accounts import oidc
from pipelines.accounts.oidc import LoginCode
from web.access.oidc_client import LOGIN_SECONDS, LoginExpired, ProviderFailed
from web.api.accounts.signup import tokens_response
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response, page_object
from web.http.validation import Body

log = logging.getLogger(__name__)

#: Binds a login to the browser that began it, while somebody is at the provider.
LOGIN_COOKIE = "sangha_login"

#: Binds what the page exchanges to the browser that came back.
CODE_COOKIE = "sangha_pass"  # noqa: S105 - a name


class ExchangeLoginCode(Body):
    """The body of `POST /auth/oidc/exchange`."""

    code: str = Field(max_length=200)


class ProviderObject(TypedDict):
    """A provider; `GET /auth/oidc/{id}` in a browser logs in with it."""

    id: str
    object: Literal["oidc.provider"]
    name: str


async def list_providers(request: Request) -> Response:
    """`GET /auth/oidc`: the providers that people may log in with."""
    return json_response(page_object([_provider_object(provider) for provider in request.platform.oidc.providers.values()]))


async def begin(request: Request) -> Response:
    """`GET /auth/oidc/{provider}`: go to the provider, in a browser. Raises NotFound."""
    name = _provider_name(request)
    here = f"{request.platform.settings.public_address}/auth/oidc/{name}/callback"
    try:
        there, cookie = await request.platform.oidc.begin(name, here)
    except ProviderFailed as error:
        log.warning("login with %s: %s", name, error)
        return _redirect_home("login_error=provider_unavailable")
    answer = _redirect(there)
    answer.set_cookie(LOGIN_COOKIE, cookie, max_age=LOGIN_SECONDS, samesite="lax", **_cookie_options(request, "/auth/oidc"))
    return answer


async def callback(request: Request) -> Response:
    """`GET /auth/oidc/{provider}/callback`: come back from the provider, to the page. Raises NotFound."""
    name = _provider_name(request)
    if "error" in request.query:
        reason = "access_denied" if request.query["error"] == "access_denied" else "provider_failed"
        return _end_login(request, _redirect_home(f"login_error={reason}"))
    try:
        claims = await request.platform.oidc.finish(name, request.query, _cookie(request, LOGIN_COOKIE))
        user_id = await run_in_threadpool(oidc.resolve_user, request.platform.database, claims, request.origin)
    except LoginExpired:
        return _end_login(request, _redirect_home("login_error=login_expired"))
    except ProviderFailed as error:
        log.warning("login with %s: %s", name, error)
        return _end_login(request, _redirect_home("login_error=provider_failed"))
    except NotAllowed as error:
        return _end_login(request, _redirect_home(f"login_error={error.code}"))
    request.platform.queue.nudge()
    given = await run_in_threadpool(oidc.issue_login_code, request.platform.redis, user_id)
    answer = _end_login(request, _redirect_home(f"login={given.code}"))
    where = _cookie_options(request, "/auth/oidc/exchange")
    answer.set_cookie(CODE_COOKIE, given.binding, max_age=oidc.EXCHANGE_SECONDS, samesite="strict", **where)
    return answer


def exchange(request: Request) -> Response:
    """`POST /auth/oidc/exchange`: tokens for the code that the page got, once, in the browser that it was given to."""
    body = bodies.parse(request.body, ExchangeLoginCode)
    shown = LoginCode(body.code, _cookie(request, CODE_COOKIE))
    house = request.platform
    return tokens_response(oidc.exchange_login_code(house.database, house.redis, house.tokens, shown, request.origin))


def _provider_name(request: Request) -> str:
    name = request.path_params["provider"]
    if name not in request.platform.oidc.providers:
        raise NotFound(f"There is no provider '{name}'.", param="provider")
    return name


def _provider_object(provider: OidcProvider) -> ProviderObject:
    return {"id": provider.name, "object": "oidc.provider", "name": provider.label}


def _redirect_home(fragment: str) -> RedirectResponse:
    """To our own page, always: nothing of a request says where."""
    return _redirect(f"/#{fragment}")


def _redirect(there: str) -> RedirectResponse:
    return RedirectResponse(there, 302, {"cache-control": "no-store", "referrer-policy": "no-referrer"})


def _end_login(request: Request, answer: Response) -> Response:
    """The login is over, whatever came of it."""
    answer.delete_cookie(LOGIN_COOKIE, samesite="lax", **_cookie_options(request, "/auth/oidc"))
    return answer


def _cookie_options(request: Request, path: str) -> "CookieOptions":
    secure = request.platform.settings.public_address.startswith("https://")
    return {"path": path, "secure": secure, "httponly": True}


class CookieOptions(TypedDict):
    """Where a cookie goes; no script sees it."""

    path: str
    secure: bool
    httponly: bool


def _cookie(request: Request, name: str) -> str:
    try:
        morsel = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""

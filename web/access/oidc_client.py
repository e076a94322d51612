"""Client for OpenID Connect providers: Authlib's Starlette client, with the checks that it leaves to applications.

Authlib generates and checks state, nonce and PKCE's verifier, and validates ID tokens. This module checks that a
provider is the configured issuer and signs asymmetrically, and stores logins while their user is at the provider: their
secrets in Redis, readable once; what binds them to the browser in a signed cookie.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import itsdangerous
import redis
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth, StarletteOAuth2App
from joserfc.errors import JoseError
from starlette.datastructures import QueryParams

from models.accounts.identities import Identity
from models.platform.oidc_providers import OidcProvider
from pipelines.accounts.oidc import Claims
from web.http.threads import run_in_thread

#: Seconds that a user may take at the provider.
LOGIN_SECONDS = 600

#: Seconds that a provider may take to respond.
TIMEOUT = 10.0

#: Asymmetric signatures: only the provider can create them. Shared-secret algorithms and `none` are excluded.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")

#: Everything that Authlib and its parsers raise for an invalid response of a provider.
INVALID_RESPONSE = (AuthlibBaseError, JoseError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError,
                    TypeError, AttributeError, RuntimeError)  # fmt: skip


class ProviderFailed(Exception):
    """The provider cannot be reached, or its response is invalid."""


class LoginExpired(Exception):
    """The login is unknown, expired, already used, or was started in another browser."""


@dataclass
class AuthlibRequest:
    """The parts of a request that Authlib reads. `session` is stored in the cookie and restored from it."""

    query_params: QueryParams = field(default_factory=QueryParams)
    session: dict[str, Any] = field(default_factory=dict)
    scope: dict[str, str] = field(default_factory=lambda: {"method": "GET"})


class LoginStateCache:
    """Authlib's cache of logins that wait for their callback: in Redis, deleted when they are read."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    async def get(self, key: str) -> Any:
        """Read and delete an entry: a state is valid once."""
        return await run_in_thread(self._redis.getdel, _key(key))

    async def set(self, key: str, value: str, seconds: int) -> None:
        """Store an entry for a number of seconds."""
        await run_in_thread(partial(self._redis.set, _key(key), value, ex=seconds))

    async def delete(self, key: str) -> None:
        """Do nothing: `get` has deleted the entry."""


class OidcClient:
    """Client for all configured providers. Each provider's metadata is loaded when it is first needed."""

    def __init__(self, providers: Sequence[OidcProvider], client: redis.Redis, secret: bytes) -> None:
        self.providers = {provider.name: provider for provider in providers}
        self._registry = OAuth(cache=LoginStateCache(client))
        self._cookies = itsdangerous.URLSafeTimedSerializer(secret, salt="sangha oidc login")
        if providers:
            # Created once: each client would create its own in 20 ms, on the event loop.
            context = httpx2.create_ssl_context()
            for provider in providers:
                self._register(provider, {"timeout": TIMEOUT, "verify": context})

    async def begin(self, name: str, redirect_uri: str) -> tuple[str, str]:
        """Start a login: returns the URL to send the browser to, and its cookie. Raises ProviderFailed."""
        request = AuthlibRequest()
        try:
            app = await self._app(name)
            redirect = await app.authorize_redirect(request, redirect_uri)
        except INVALID_RESPONSE as error:
            raise ProviderFailed(type(error).__name__) from error
        return redirect.headers["location"], self._cookies.dumps(request.session)

    async def finish(self, name: str, query: QueryParams, cookie: str) -> Claims:
        """Complete a login: returns the user's verified claims. Raises LoginExpired and ProviderFailed."""
        request = AuthlibRequest(query, self._session(cookie))
        if f"_state_{name}_{query.get('state')}" not in request.session:
            raise LoginExpired
        try:
            app = await self._app(name)
            token = await app.authorize_access_token(request, claims_options=self._claims_options(app))
            return await _claims(name, app, token)
        except INVALID_RESPONSE as error:
            if getattr(error, "error", None) == "mismatching_state":
                raise LoginExpired from error
            raise ProviderFailed(type(error).__name__) from error

    def _register(self, provider: OidcProvider, options: dict[str, Any]) -> None:
        app = self._registry.register(
            provider.name,
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            server_metadata_url=provider.issuer.rstrip("/") + "/.well-known/openid-configuration",
            client_kwargs={"scope": provider.scopes, "code_challenge_method": "S256", **options},
        )
        app.framework.expires_in = LOGIN_SECONDS

    async def _app(self, name: str) -> StarletteOAuth2App:
        """Return a provider's client after checking its issuer (OpenID Connect Discovery 1.0, 4.3)."""
        app = self._registry.create_client(name)
        metadata = await app.load_server_metadata()
        if metadata.get("issuer") != self.providers[name].issuer:
            app.server_metadata.clear()
            raise ValueError("the provider's metadata names another issuer")
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [each for each in offered if each in ALGORITHMS]
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if app.client_secret and "client_secret_basic" not in methods and "client_secret_post" in methods:
            app.client_kwargs["token_endpoint_auth_method"] = "client_secret_post"  # noqa: S105 - a method's name
        return app

    def _claims_options(self, app: StarletteOAuth2App) -> dict[str, Any]:
        return {
            "iss": {"essential": True, "value": self.providers[app.name].issuer},
            "aud": {"essential": True, "value": app.client_id},
            "nonce": {"essential": True},
        }

    def _session(self, cookie: str) -> dict[str, Any]:
        try:
            session: dict[str, Any] = self._cookies.loads(cookie, max_age=LOGIN_SECONDS)
        except itsdangerous.BadData:
            raise LoginExpired from None
        return session


async def _claims(name: str, app: StarletteOAuth2App, token: dict[str, Any]) -> Claims:
    """Read the user's claims from the ID token, and a missing e-mail address from the userinfo endpoint."""
    claims = token["userinfo"]
    if "email" not in claims and app.server_metadata.get("userinfo_endpoint"):
        userinfo = await app.userinfo(token=token)
        if userinfo["sub"] != claims["sub"]:
            raise ValueError("the userinfo endpoint describes another subject than the ID token")
        claims = {**userinfo, **claims}
    # Some providers send the boolean as a string.
    verified = claims.get("email_verified") is True or claims.get("email_verified") == "true"
    identity = Identity(name, str(claims["sub"]))
    return Claims(identity, str(claims.get("email") or ""), verified, str(claims.get("name") or ""))


def _key(key: str) -> str:
    return f"sangha:oidc:login:{key}"

"""OIDC providers as a client of theirs sees them: Authlib's Starlette client, with what it leaves to us.

Authlib makes and checks state, nonce and PKCE's verifier, and validates ID tokens. Here: that a provider is who the
settings say, that only its own signatures count, and where a login waits while somebody is at the provider: its secrets
in Redis, good once; what binds them to the browser in a signed cookie.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import itsdangerous
import redis
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth, StarletteOAuth2App
from joserfc.errors import JoseError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams

from models.accounts.identities import Identity
from models.platform.oidc_providers import Provider
from pipelines.accounts.oidc import Claims

#: Seconds that somebody may take at the provider.
LOGIN_SECONDS = 600

#: Seconds that a provider may take for an answer.
PATIENCE = 10.0

#: Signatures that only the provider can make; those with a shared secret or none are not among them.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")

#: What goes wrong with a provider's answers, whatever it sends.
WRONG = (AuthlibBaseError, JoseError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError,
         AttributeError, RuntimeError)  # fmt: skip


class ProviderFailed(Exception):
    """The provider, or somebody in its name, sent what can't be trusted."""


class LoginExpired(Exception):
    """The login is unknown, over, done already, or was begun in another browser."""


@dataclass
class Visit:
    """What Authlib looks at of a request. `session` goes into the cookie, and comes from it."""

    query_params: QueryParams = field(default_factory=QueryParams)
    session: dict[str, Any] = field(default_factory=dict)
    scope: dict[str, str] = field(default_factory=lambda: {"method": "GET"})


class Waiting:
    """Logins that wait for their callback, for Authlib: in Redis, taken out when they are read."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    async def get(self, key: str) -> Any:
        """Whoever reads first has it: a state is good once."""
        return await run_in_threadpool(self._redis.getdel, _key(key))

    async def set(self, key: str, value: str, seconds: int) -> None:
        """Keep it for a while."""
        await run_in_threadpool(self._redis.set, _key(key), value, ex=seconds)

    async def delete(self, key: str) -> None:
        """It is gone with its reading."""


class Providers:
    """All providers of the settings, each found out about when it is first needed."""

    def __init__(self, providers: Sequence[Provider], client: redis.Redis, secret: bytes) -> None:
        self.known = {provider.name: provider for provider in providers}
        self._registry = OAuth(cache=Waiting(client))
        self._cookies = itsdangerous.URLSafeTimedSerializer(secret, salt="sangha oidc login")
        if providers:
            # Made once: each client would make its own for 20 ms, on the event loop.
            trust = httpx2.create_ssl_context()
            for provider in providers:
                self._register(provider, {"timeout": PATIENCE, "verify": trust})

    async def begin(self, name: str, redirect_uri: str) -> tuple[str, str]:
        """Where to send the browser, and the cookie for it. Raises ProviderFailed."""
        visit = Visit()
        try:
            app = await self._ready(name)
            answer = await app.authorize_redirect(visit, redirect_uri)
        except WRONG as error:
            raise ProviderFailed(type(error).__name__) from error
        return answer.headers["location"], self._cookies.dumps(visit.session)

    async def finish(self, name: str, query: QueryParams, cookie: str) -> Claims:
        """Who came back. Raises LoginExpired and ProviderFailed."""
        visit = Visit(query, self._session(cookie))
        if f"_state_{name}_{query.get('state')}" not in visit.session:
            raise LoginExpired
        try:
            app = await self._ready(name)
            token = await app.authorize_access_token(visit, claims_options=self._expected(app))
            return await _claims(name, app, token)
        except WRONG as error:
            if getattr(error, "error", None) == "mismatching_state":
                raise LoginExpired from error
            raise ProviderFailed(type(error).__name__) from error

    def _register(self, provider: Provider, options: dict[str, Any]) -> None:
        app = self._registry.register(
            provider.name,
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            server_metadata_url=provider.issuer.rstrip("/") + "/.well-known/openid-configuration",
            client_kwargs={"scope": provider.scopes, "code_challenge_method": "S256", **options},
        )
        app.framework.expires_in = LOGIN_SECONDS

    async def _ready(self, name: str) -> StarletteOAuth2App:
        """The client of a provider that is who the settings say (OpenID Connect Discovery 1.0, 4.3)."""
        app = self._registry.create_client(name)
        metadata = await app.load_server_metadata()
        if metadata.get("issuer") != self.known[name].issuer:
            app.server_metadata.clear()
            raise ValueError("the provider names itself otherwise")
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [each for each in offered if each in ALGORITHMS]
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if app.client_secret and "client_secret_basic" not in methods and "client_secret_post" in methods:
            app.client_kwargs["token_endpoint_auth_method"] = "client_secret_post"  # noqa: S105 - a method's name
        return app

    def _expected(self, app: StarletteOAuth2App) -> dict[str, Any]:
        return {
            "iss": {"essential": True, "value": self.known[app.name].issuer},
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
    """From the ID token, and where that tells no address, from the provider's userinfo about the same person."""
    told = token["userinfo"]
    if "email" not in told and app.server_metadata.get("userinfo_endpoint"):
        more = await app.userinfo(token=token)
        if more["sub"] != told["sub"]:
            raise ValueError("userinfo tells of somebody else")
        told = {**more, **told}
    # Some send the boolean as a text.
    verified = told.get("email_verified") in (True, "true")
    identity = Identity(name, str(told["sub"]))
    return Claims(identity, str(told.get("email") or ""), verified, str(told.get("name") or ""))


def _key(key: str) -> str:
    return f"sangha:oidc:login:{key}"

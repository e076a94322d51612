"""The web process as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from models.platform.exposition import Exposition
from models.platform.secrets import load_secret_key
from models.platform.settings import Settings
from pipelines.accounts.access_tokens import AccessTokens
from web.access.connection_limit import ConnectionLimit
from web.api.platform import Platform
from web.api.routing import Route, mount
from web.api.stream_guard import guard_streams
from web.api.system import checks, openapi
from web.api.turns.waiting import read_waiting_jobs
from web.http.cross_origin import CrossOriginMiddleware
from web.http.documents import CachedDocument
from web.http.hosts import AllowedHosts
from web.http.middleware import RequestMiddleware
from web.http.strict_transport import StrictTransportMiddleware, strict_host
from web.http.threads import install_threads, run_in_thread
from web.routes import ROUTES
from web.streams.waiting import WaitingStreams


def build(settings: Settings, routes: Sequence[Route] = ROUTES) -> Starlette:
    """Build the application; it opens its platform at startup and closes it at shutdown. Raises ConfigurationError."""
    tokens, metrics = AccessTokens(load_secret_key(settings)), Exposition()
    if settings.metrics_address is not None:  # served there only
        routes = [route for route in routes if route.path != "/metrics"]
    document = CachedDocument(partial(openapi.render, routes), "application/json")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        install_threads()
        platform = app.state.platform = Platform.open(settings, tokens, metrics, document)
        checks.install(platform)
        await platform.tail.start()
        waiting = WaitingStreams(platform.streams, partial(read_waiting_jobs, platform))
        works = (guard_streams(platform), platform.lease.renew_always(), waiting.run())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await run_in_thread(platform.lease.end)
            await platform.tail.stop()
            platform.close()

    middleware = [
        *_strict_transport_middleware(settings),
        *_cross_origin_middleware(settings, routes),
        *_proxy_middleware(settings),
        Middleware(RequestMiddleware, hosts=AllowedHosts.of(settings)),
    ]
    app = Application(routes=mount(routes), middleware=middleware, lifespan=lifespan)
    app.state.metrics = metrics
    app.state.connection_limit = ConnectionLimit.of(settings)
    # A redirect to the path with or without a final slash would lose the body of a POST in many clients.
    app.router.redirect_slashes = False
    return app


class Application(Starlette):
    """Starlette without its two error layers: `RequestMiddleware` handles all errors, and each open stream would keep
    both layers in memory.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """Wrap the router in our middleware, the first one outermost."""
        app: ASGIApp = self.router
        for layer in reversed(self.user_middleware):
            app = layer.cls(app, *layer.args, **layer.kwargs)
        return app


def _cross_origin_middleware(settings: Settings, routes: Sequence[Route]) -> list[Middleware]:
    """Return the middleware that lets pages of other origins use the API, if any may."""
    if not settings.cors_origins:
        return []
    closed = [route.path for route in routes if route.same_origin]
    return [Middleware(CrossOriginMiddleware, origins=settings.cors_origins, closed_paths=closed)]


def _strict_transport_middleware(settings: Settings) -> list[Middleware]:
    """Return the middleware that keeps browsers on TLS, outside the one that lets proxies name the scheme."""
    host = strict_host(settings)
    return [Middleware(StrictTransportMiddleware, host=host)] if host else []


def _proxy_middleware(settings: Settings) -> list[Middleware]:
    """Return the middleware that takes the client's address from `X-Forwarded-For`, from trusted proxies only."""
    if settings.trusted_proxies is None:
        return []
    proxies = [part.strip() for part in settings.trusted_proxies.split(",")]
    return [Middleware(ProxyHeadersMiddleware, trusted_hosts=proxies)]

"""The HTTP door as an ASGI application."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from models.platform.secrets import secret_key
from models.platform.settings import Settings
from pipelines.accounts.tokens import Tokens
from web.health import checks
from web.health.metrics import Metrics
from web.http.edge import Edge
from web.platform import Platform
from web.routes import ROUTES
from web.routing import Row, mount

#: Requests that may wait for the database at the same time; each costs a thread's stack only while it runs.
THREADS = 64


def build(settings: Settings, rows: Iterable[Row] = ROUTES) -> Starlette:
    """The application; it opens its platform when it starts and closes it when it ends. Raises ConfigurationError."""
    tokens, metrics = Tokens(secret_key(settings)), Metrics()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        platform = app.state.platform = Platform.open(settings, tokens, metrics)
        checks.install(platform)
        await platform.tail.start()
        try:
            yield
        finally:
            await platform.tail.stop()
            platform.close()

    middleware = [*behind_proxies(settings), Middleware(Edge, metrics=metrics)]
    app = Application(routes=mount(rows), middleware=middleware, lifespan=lifespan)
    # An address is right or wrong: a redirect would lose the body of a POST in many clients.
    app.router.redirect_slashes = False
    return app


class Application(Starlette):
    """Starlette without its own two layers for errors: `Edge` answers them all, and each stream would hold both."""

    def build_middleware_stack(self) -> ASGIApp:
        """The router behind our layers, the outermost first."""
        app: ASGIApp = self.router
        for layer in reversed(self.user_middleware):
            app = layer.cls(app, *layer.args, **layer.kwargs)
        return app


def behind_proxies(settings: Settings) -> list[Middleware]:
    """What takes a trusted proxy's word for where a request came from; anybody else's is not heard."""
    if settings.trusted_proxies is None:
        return []
    proxies = [part.strip() for part in settings.trusted_proxies.split(",")]
    return [Middleware(ProxyHeadersMiddleware, trusted_hosts=proxies)]

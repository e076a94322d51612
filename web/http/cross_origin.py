"""Let pages of other origins use the API (CORS, Fetch standard 3.2), where the settings name their origins.

It is the outermost layer, so that errors of every kind have its headers, without which a page cannot read a status.
Credentials that browsers add by themselves are never allowed: a page sends an API key or a token.
"""

from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from models.platform.errors import InvalidRequest
from web.http.errors import error_response

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

#: Response headers that pages may read, beside the safelisted ones such as `content-type`.
EXPOSED_HEADERS = (
    "content-disposition",
    "etag",
    "idempotent-replayed",
    "mcp-session-id",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "www-authenticate",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
    "x-sangha-ignored",
    "x-sangha-job-id",
    "x-sangha-response-id",
    "x-should-retry",
)

#: Seconds for which a browser may keep the answer to a preflight request: the most that Chromium respects.
MAX_AGE = 7200


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's middleware with our error envelope, and with paths that stay closed."""

    def __init__(self, app: ASGIApp, origins: Collection[str], closed_paths: Sequence[str] = ()) -> None:
        """Open all paths to the origins except `closed_paths`, which may have parameters in braces."""
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            max_age=MAX_AGE,
            allow_private_network="*" not in origins,
        )
        self._closed = [compile_path(path)[0] for path in closed_paths]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and any(path.match(scope["path"]) for path in self._closed):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return status 204 for an allowed request, and an error otherwise."""
        response = super().preflight_response(request_headers)
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        if response.status_code == 200:
            return Response(status_code=204, headers=headers)
        message = f"{bytes(response.body).decode()}. SANGHA_CORS_ORIGINS names the origins that may use this server."
        refusal = error_response(InvalidRequest(message, code="cross_origin_request_refused"), "")
        refusal.headers.update(headers)
        return refusal

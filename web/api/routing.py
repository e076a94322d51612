"""Serve the route table as ASGI: authenticate a request, read its body, call the endpoint and send its response.

A plain function runs in the thread pool, where it may block; an `async def` runs on the event loop, where it must not.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from models.access.idempotency import PriorUse
from models.platform.errors import InvalidRequest, NotAuthenticated
from models.platform.ids import IdGenerator
from web.access import idempotency
from web.access.gate import Admission, AuthRequest
from web.access.idempotency import KeyedRequest
from web.access.implicit_keys import implicit_key
from web.access.retries import RetriableRequest
from web.access.rights import Rights
from web.api.file_forms import FormType, ReceivedFile, receive_file
from web.api.platform import Platform
from web.api.request import Request
from web.http import bodies, uploads
from web.http.content_encoding import decoded
from web.http.disconnects import DeferredResponse
from web.http.errors import BearerChallenge
from web.http.forms import MAX_OVERHEAD
from web.http.media_types import check_media_type
from web.http.public_urls import metadata_url
from web.http.threads import run_in_thread
from web.http.uploads import Upload
from web.streams.sse import EventStream, StreamPermit

EndpointResponse = Response | EventStream | DeferredResponse
Endpoint = Callable[[Request], EndpointResponse] | Callable[[Request], Awaitable[EndpointResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the route table.

    body, query       types of the request, for the OpenAPI schema; the endpoint parses them
    response          type of the response's JSON, a TypedDict or a pydantic model; None when it is not JSON
    status            status of a success
    other_responses   types of the JSON of other expected statuses; None for one without a body
    upload_type       media type of a large body, which the endpoint reads from a file
    form              of a form with a file, which is stored while it arrives; `body` is the type of its other fields
    streams           the response may be an event stream
    creates           the endpoint creates something, so an `Idempotency-Key` is honoured
    handles_repeats   the endpoint itself finds what an earlier request with the same key has created, so a repeat
                      does not wait for the first request and no response is stored
    restores          the endpoint restores the response of an answered request with the same key from what exists, so
                      that no copy of texts is stored
    has_side_effects  a GET that changes something, so it is rate-limited like the other methods
    cost              requests that it counts as; 0 is never rejected by a limit of the account, such as a cancel
    same_origin       it trusts a cookie or the network, so it stays closed to pages of other origins in any case
    max_body          bytes of a body; 0: the usual limit
    protected_path    of the resource whose metadata (RFC 9728) a response with status 401 names
    in_openapi        the OpenAPI document has it; not a route with a protocol of its own
    purpose           of a public route: counts apart from other purposes, so that one does not use another's limit up
    """

    method: str
    path: str
    endpoint: Endpoint
    rights: Rights
    _: KW_ONLY
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    response: Any = None
    status: int = 200
    other_responses: Mapping[int, Any] = field(default_factory=dict)
    upload_type: str = ""
    form: FormType | None = None
    streams: bool = False
    creates: bool = False
    handles_repeats: bool = False
    restores: bool = False
    has_side_effects: bool = False
    cost: int = 1
    same_origin: bool = False
    max_body: int = 0
    protected_path: str = ""
    in_openapi: bool = True
    purpose: str = ""

    @property
    def creates_turns(self) -> bool:
        """Whether a request to the route creates turns."""
        return self.creates and self.streams

    @property
    def max_body_bytes(self) -> int:
        """The most bytes of a body."""
        if self.upload_type:
            return uploads.MAX_BYTES
        if self.form:
            return self.form.max_bytes + MAX_OVERHEAD
        if self.max_body:
            return self.max_body
        return bodies.MAX_PUBLIC_BYTES if self.rights.public else bodies.MAX_BYTES

    async def run(self, request: Request) -> EndpointResponse:
        """Call the endpoint, in the thread pool unless it is a coroutine function. Raises LimitExceeded."""
        if inspect.iscoroutinefunction(self.endpoint):
            response: EndpointResponse = await self.endpoint(request)
            return response
        if not (account_id := account_of(request.admission)):
            return await run_in_thread(self.endpoint, request)  # type: ignore[arg-type]
        async with request.platform.calls.take(account_id):
            return await run_in_thread(self.endpoint, request)  # type: ignore[arg-type]


def mount(routes: Iterable[Route]) -> list[StarletteRoute]:
    """Convert the table to Starlette's routes, one for each path, in the order of the table except for turns.

    Starlette compares a request with one path after the other, so those that create turns are first.

    Raises ValueError for a duplicate, and for a route that cannot honour an Idempotency-Key although it should.
    """
    resources: dict[str, Resource] = {}
    for route in routes:
        resource = resources.setdefault(route.path, Resource(route.path, {}))
        if route.method in resource.routes:
            raise ValueError(f"{route.method} {route.path} is in the route table twice")
        if route.creates and route.rights.public:
            raise ValueError(f"{route.method} {route.path}: an Idempotency-Key needs an account; the route is public")
        if route.creates and route.streams and not route.handles_repeats:
            raise ValueError(
                f"{route.method} {route.path}: a stream cannot be stored; its endpoint must handle repeats"
            )
        resource.routes[route.method] = route
    ordered = sorted(resources.values(), key=lambda resource: not resource.creates_turns)
    return [StarletteRoute(resource.path, resource) for resource in ordered]


@dataclass(frozen=True)
class Resource:
    """All methods of one path, as an ASGI application."""

    path: str
    routes: dict[str, Route]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request. Raises the errors that `web.http.errors` maps to responses."""
        route = self._route(scope["method"])
        platform: Platform = scope["app"].state.platform
        headers, ip = Headers(scope=scope), (scope["client"] or ("",))[0]
        reads = scope["method"] in ("GET", "HEAD") and not route.has_side_effects
        if route.rights.public and not reads and scope["method"] not in ("GET", "HEAD"):
            check_media_type(headers)
        auth_request = AuthRequest(headers, ip, route.rights, route.cost, reads, route.purpose)
        admission = await _admit(route, platform, auth_request)
        scope["response_sender"].add_headers(admission.headers)
        query = _query(scope)
        content = decoded(scope, receive, route.max_body_bytes)
        received = await _receive_form(route.form, platform, admission, scope, content) if route.form else None
        upload = await _spool(platform, admission, scope, content) if route.upload_type else None
        source = upload or received
        body = source.digest if source else await bodies.read(scope, content, route.max_body_bytes)
        if admission.estimated_tokens and not source and len(body) > bodies.declared_length(scope):
            admission = await run_in_thread(platform.gate.draw_body, admission, len(body))
            scope["response_sender"].add_headers(admission.headers)
        permit = stream_permit(platform, admission)
        request = Request(
            platform, admission, scope["request_id"], ip, scope["path_params"], query, headers, body, permit, upload,
            received, add_headers=scope["response_sender"].add_headers,
        )  # fmt: skip
        try:
            response = await respond(route, request)
            if isinstance(response, EventStream):
                permit.acquire()
                with platform.streams.count_for(response, admission.identity):
                    await response(scope, receive, send)
            else:
                await response(scope, receive, send)
        finally:
            request.cleanup.close()
            permit.release()
            if source:
                source.close()

    def _route(self, method: str) -> Route:
        route = self.routes.get("GET" if method == "HEAD" else method)
        if route is None:
            raise HTTPException(405, headers={"allow": self.allowed})
        return route

    @property
    def creates_turns(self) -> bool:
        """Whether a request to the path creates a turn."""
        return any(route.creates_turns for route in self.routes.values())

    @cached_property
    def allowed(self) -> str:
        """The value of the Allow header (RFC 9110, 10.2.1)."""
        return ", ".join(sorted({*self.routes} | ({"HEAD"} if "GET" in self.routes else set())))


async def _admit(route: Route, platform: Platform, request: AuthRequest) -> Admission:
    try:
        return await run_in_thread(platform.gate.admit, request)
    except NotAuthenticated as error:
        if not route.protected_path:
            raise
        url = metadata_url(platform.settings, request.headers, route.protected_path)
        raise BearerChallenge(error, resource_metadata=url) from None


def account_of(admission: Admission) -> str:
    """Return the caller's account; empty on a public route."""
    return admission.identity.account_id if admission.identity else ""


def stream_permit(platform: Platform, admission: Admission) -> StreamPermit:
    """Return the caller's permit for an event stream, not yet acquired."""
    return StreamPermit(platform.streams, account_of(admission), admission.limits.streams)


async def _receive_form(
    form_type: FormType, platform: Platform, admission: Admission, scope: Scope, receive: Receive
) -> ReceivedFile:
    """Store the file of a form while it arrives. Raises LimitExceeded if the account has too many in progress."""
    with platform.uploads.count(account_of(admission)):
        return await receive_file(platform, admission, scope, receive, form_type)


async def _spool(platform: Platform, admission: Admission, scope: Scope, receive: Receive) -> Upload:
    """Read a large body into a file. Raises LimitExceeded if the account has too many uploads in progress."""
    with platform.uploads.count(account_of(admission)):
        return await uploads.spool(scope, receive)


async def respond(route: Route, request: Request) -> EndpointResponse:
    """Call the endpoint; for a request with an Idempotency-Key, or the retries of one, at most once with success."""
    key = idempotency.read_key(request.headers) if route.creates else None
    if key is None and route.creates_turns:
        retriable = RetriableRequest(request.caller, f"{route.method} {route.path}", request.headers, request.body)
        request = replace(request, ids=IdGenerator(retriable.seed), retriable=retriable)
    elif key is None and route.creates:
        target = f"{route.method} {route.path} {sorted(request.path_params.items())} {request.query}"
        original = RetriableRequest(request.caller, target, request.headers, request.body)
        key = await run_in_thread(implicit_key, request.platform.redis, original)
    if key is None:
        return await route.run(request)

    async def run(ids: IdGenerator, repeat: PriorUse) -> EndpointResponse:
        return await route.run(replace(request, ids=ids, repeat=repeat))

    caller, fingerprint = request.caller, _fingerprint(route, request)
    keyed = KeyedRequest(caller.account_id, caller.user_id, key, fingerprint, request.request_id)
    return await request.platform.idempotency.respond(
        keyed, run, handles_repeats=route.handles_repeats, stores=not route.restores
    )


def _fingerprint(route: Route, request: Request) -> bytes:
    """Hash what makes two requests the same: user, method, path, query and body.

    The user is included because a stored response may contain a secret, and other users may have fewer rights.
    """
    target = (request.caller.user_id, route.method, route.path, sorted(request.path_params.items()), str(request.query))
    return idempotency.fingerprint(repr(target), request.body)


def _query(scope: Scope) -> QueryParams:
    """Parse the query. Raises InvalidRequest for a NUL in it or in the path: Postgres cannot look such a text up."""
    if b"%00" in scope["query_string"] or "\0" in scope["path"]:
        raise InvalidRequest("The URL contains a NUL character.", code="invalid_character")
    return QueryParams(scope["query_string"])

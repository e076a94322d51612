"""From the route table to ASGI: one wrapper authenticates, reads the body, runs the endpoint and sends its answer.

A plain function runs in the thread pool, where it may block; an `async def` runs on the event loop, where it must not.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from models.accounts import Caller
from models.errors import InvalidRequest, NotAuthenticated
from web import bodies
from web.platform import Platform
from web.sse import EventStream


class Rights(Enum):
    """Who may use a route."""

    PUBLIC = auto()  # anyone
    MEMBER = auto()  # whoever shows a token, for the account that it names


@dataclass(frozen=True, slots=True)
class Call:
    """One request, authenticated and read. `path` holds the path's parameters."""

    platform: Platform
    identity: Caller | None
    request_id: str
    path: dict[str, str]
    query: QueryParams
    headers: Headers
    body: bytes

    @property
    def caller(self) -> Caller:
        """Who asks. Raises NotAuthenticated on a public route, which has nobody."""
        if self.identity is None:
            raise NotAuthenticated("This needs a token.")
        return self.identity


Answer = Response | EventStream
Endpoint = Callable[[Call], Answer] | Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the route table."""

    method: str
    path: str
    endpoint: Endpoint
    rights: Rights


def mount(rows: Iterable[Row]) -> list[Route]:
    """The table as Starlette's routes, one a path, in the order of the table."""
    resources: dict[str, Resource] = {}
    for row in rows:
        resource = resources.setdefault(row.path, Resource(row.path, {}))
        if row.method in resource.rows:
            raise ValueError(f"{row.method} {row.path} stands twice in the route table")
        resource.rows[row.method] = row
    return [Route(path, resource) for path, resource in resources.items()]


@dataclass(frozen=True)
class Resource:
    """All methods of one path, as an ASGI application."""

    path: str
    rows: dict[str, Row]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise what `web.errors` maps."""
        row = self._row(scope["method"])
        platform: Platform = scope["app"].state.platform
        headers = Headers(scope=scope)
        identity = authenticate(platform, headers, row.rights)
        query = _query(scope)
        body = await bodies.read(scope, receive)
        call = Call(platform, identity, scope["request_id"], scope["path_params"], query, headers, body)
        answer = await run(row.endpoint, call)
        await answer(scope, receive, send)

    def _row(self, method: str) -> Row:
        row = self.rows.get("GET" if method == "HEAD" else method)
        if row is None:
            raise HTTPException(405, headers={"allow": self.allowed})
        return row

    @cached_property
    def allowed(self) -> str:
        """The value of an Allow header (RFC 9110, 10.2.1)."""
        return ", ".join(sorted({*self.rows} | ({"HEAD"} if "GET" in self.rows else set())))


async def run(endpoint: Endpoint, call: Call) -> Answer:
    """Call the endpoint where it belongs."""
    if inspect.iscoroutinefunction(endpoint):
        answer: Answer = await endpoint(call)
        return answer
    return await run_in_threadpool(endpoint, call)  # type: ignore[arg-type]


def authenticate(platform: Platform, headers: Headers, rights: Rights) -> Caller | None:
    """Who asks, from `Authorization: Bearer …`; nobody on a public route. Raises NotAuthenticated."""
    if rights is Rights.PUBLIC:
        return None
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("Send a token: `Authorization: Bearer …`. POST /signup and POST /login give one.")
    return platform.tokens.verify(token.strip())


def _query(scope: Scope) -> QueryParams:
    """The query string and the path, free of NUL characters, which Postgres can't look up."""
    if b"%00" in scope["query_string"] or "\0" in scope["path"]:
        raise InvalidRequest("The address contains a NUL character.", code="invalid_character")
    return QueryParams(scope["query_string"])

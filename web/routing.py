"""From the route table to ASGI: one wrapper asks the gate, reads the body, runs the endpoint and sends its answer.

A plain function runs in the thread pool, where it may block; an `async def` runs on the event loop, where it must not.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from models.access.idempotency import Repeat
from models.accounts.accounts import Caller
from models.accounts.audit import Trail
from models.accounts.plans import Allowance
from models.platform.errors import InvalidRequest, NotAuthenticated
from models.platform.ids import Ids
from web.entrance import idempotency
from web.entrance.gate import Admission, Knock
from web.entrance.rights import Rights
from web.http import bodies, uploads
from web.http.pending import Pending
from web.http.uploads import Upload
from web.platform import Platform
from web.streams.sse import EventStream, Seat

__all__ = ["Answer", "Call", "Endpoint", "Rights", "Row", "mount"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, admitted and read.

    path    the path's parameters
    ip      where it came from
    body    what came in; of an upload its digest
    seat    to be taken before anything is made that an event stream is to tell of
    exits   what is to be given back once it is answered, or can't be
    repeat  whether it came before under its Idempotency-Key, and so may find what it makes
    """

    platform: Platform
    admission: Admission
    request_id: str
    ip: str
    path: dict[str, str]
    query: QueryParams
    headers: Headers
    body: bytes
    seat: Seat
    upload: Upload | None = None
    ids: Ids = field(default_factory=Ids)
    exits: ExitStack = field(default_factory=ExitStack)
    repeat: Repeat = "first"

    @property
    def caller(self) -> Caller:
        """Who asks. Raises NotAuthenticated on a public route, which has nobody."""
        if self.admission.identity is None:
            raise NotAuthenticated("This needs a token.")
        return self.admission.identity

    def identify(self) -> Caller | None:
        """Who has logged in, on a route that is open to all, where the gate has not looked. Blocks as the gate does."""
        if "authorization" not in self.headers:
            return None
        return self.platform.gate.admit(Knock(self.headers, self.ip, Rights.PERSON, 1)).identity

    def new_id(self, prefix: str) -> str:
        """The id of something that this request makes: under an Idempotency-Key the same each time."""
        return self.ids.new(prefix)

    @property
    def allowance(self) -> Allowance:
        """What the request may begin."""
        return Allowance(self.admission.limits, self.admission.charged, self.platform.settings.context)

    @property
    def trail(self) -> Trail:
        """Where the request came from, for the audit log."""
        agent = self.headers.get("user-agent", "").encode("utf-8", "replace").decode().replace("\0", "")
        return Trail(self.ip, agent, self.request_id)


Answer = Response | EventStream | Pending
Endpoint = Callable[[Call], Answer] | Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the route table.

    body, query  the types of what comes in, for the schema; the endpoint parses them
    answer       the type of the JSON that goes out: a TypedDict or a pydantic model; None where it is not JSON
    status       of a success
    also         other statuses that it answers with on purpose, and the types of their JSON; None where it has none
    uploads      the media type of a large body, which the endpoint finds in a file
    streams      whether the answer may be an event stream
    creates      whether it makes something, and so honours an Idempotency-Key
    joins        whether under one key its endpoint finds what it has made and answers alike, so that nobody need wait
    acts         whether it does something although it is a GET, and so is limited like what is none
    cost         requests that it counts for against limits; 0 is never refused by one, such as a cancel
    """

    method: str
    path: str
    endpoint: Endpoint
    rights: Rights
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answer: Any = None
    status: int = 200
    also: Mapping[int, Any] = field(default_factory=dict)
    uploads: str = ""
    streams: bool = False
    creates: bool = False
    joins: bool = False
    acts: bool = False
    cost: int = 1

    async def run(self, call: Call) -> Answer:
        """Call the endpoint where it belongs."""
        if inspect.iscoroutinefunction(self.endpoint):
            answer: Answer = await self.endpoint(call)
            return answer
        return await run_in_threadpool(self.endpoint, call)  # type: ignore[arg-type]


def mount(rows: Iterable[Row]) -> list[Route]:
    """The table as Starlette's routes, one a path, in the order of the table."""
    resources: dict[str, Resource] = {}
    for row in rows:
        resource = resources.setdefault(row.path, Resource(row.path, {}))
        if row.method in resource.rows:
            raise ValueError(f"{row.method} {row.path} stands twice in the route table")
        if row.creates and row.rights.public:
            raise ValueError(f"{row.method} {row.path}: an Idempotency-Key belongs to an account; here is none")
        if row.creates and row.streams and not row.joins:
            raise ValueError(f"{row.method} {row.path}: a stream can't be stored, so its endpoint has to find it again")
        resource.rows[row.method] = row
    return [Route(path, resource) for path, resource in resources.items()]


@dataclass(frozen=True)
class Resource:
    """All methods of one path, as an ASGI application."""

    path: str
    rows: dict[str, Row]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise what `web.http.errors` maps."""
        row = self._row(scope["method"])
        platform: Platform = scope["app"].state.platform
        headers, ip = Headers(scope=scope), (scope["client"] or ("",))[0]
        reads = scope["method"] in ("GET", "HEAD") and not row.acts
        knock = Knock(headers, ip, row.rights, row.cost, reads)
        admission = await run_in_threadpool(platform.gate.admit, knock)
        scope["exchange"].tell(admission.headers)
        query = _query(scope)
        upload = await uploads.spool(scope, receive) if row.uploads else None
        most = bodies.LARGEST_PUBLIC if row.rights.public else bodies.LARGEST
        body = upload.digest if upload else await bodies.read(scope, receive, most)
        seat = seat_of(platform, admission)
        path = scope["path_params"]
        call = Call(platform, admission, scope["request_id"], ip, path, query, headers, body, seat, upload)
        try:
            answer = await (idempotency.answer(row, call, row.run) if row.creates else row.run(call))
            if isinstance(answer, EventStream):
                seat.take()
            await answer(scope, receive, send)
        finally:
            call.exits.close()
            seat.leave()
            if upload:
                upload.file.close()

    def _row(self, method: str) -> Row:
        row = self.rows.get("GET" if method == "HEAD" else method)
        if row is None:
            raise HTTPException(405, headers={"allow": self.allowed})
        return row

    @cached_property
    def allowed(self) -> str:
        """The value of an Allow header (RFC 9110, 10.2.1)."""
        return ", ".join(sorted({*self.rows} | ({"HEAD"} if "GET" in self.rows else set())))


def seat_of(platform: Platform, admission: Admission) -> Seat:
    """The caller's place for an event stream, still to be taken."""
    owner = admission.identity.account_id if admission.identity else ""
    return Seat(platform.streams, owner, admission.limits.streams)


def _query(scope: Scope) -> QueryParams:
    """The query string and the path, free of NUL characters, which Postgres can't look up."""
    if b"%00" in scope["query_string"] or "\0" in scope["path"]:
        raise InvalidRequest("The address contains a NUL character.", code="invalid_character")
    return QueryParams(scope["query_string"])

"""`Idempotency-Key`: repeats of a creating request under one key create one thing and get one response.

The first response is stored, encrypted, and sent again to repeats; a repeat that arrives earlier waits for it.
Endpoints that handle repeats themselves need neither: they find what they created before by its id, and respond from
that.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from psycopg.errors import OperationalError, UniqueViolation
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

from models.access import idempotency
from models.access.idempotency import LEASE, PriorUse, Reservation, StoredResponse
from models.platform.database import Database
from models.platform.errors import (
    Conflict,
    InvalidRequest,
    RequestError,
    RequestInFlight,
    Unavailable,
)
from models.platform.ids import IdGenerator
from models.platform.secrets import Cipher
from web.http.threads import run_in_thread

log = logging.getLogger(__name__)

HEADER = "idempotency-key"

#: Valid keys: visible ASCII.
KEY = re.compile(r"[!-~]{1,255}")

#: Marks a response that was created for an earlier request.
REPLAYED = {"idempotent-replayed": "true"}

#: Seconds that a request waits for an earlier one with its key, and between two polls, at first and at most.
LONGEST_WAIT = 30.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5


class UnfinishedResponse(Protocol):
    """A response without a body yet, such as a stream: it is not stored."""

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers to the response."""


T = TypeVar("T")
AnyResponse = TypeVar("AnyResponse", bound=Response | UnfinishedResponse)

#: Runs the endpoint with the ids that it should use, and with what earlier requests under the key have done.
Run = Callable[[IdGenerator, PriorUse], Awaitable[AnyResponse]]


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with an Idempotency-Key. `fingerprint` identifies its content."""

    account_id: str
    user_id: str
    key: str
    fingerprint: bytes
    request_id: str


def read_key(headers: Headers) -> str | None:
    """Return the request's Idempotency-Key. Raises InvalidRequest for an invalid one, or for two."""
    values = headers.getlist(HEADER)
    if not values:
        return None
    if len(values) > 1 or not KEY.fullmatch(values[0]):
        message = "'Idempotency-Key' should be one text of 1 to 255 visible ASCII characters."
        raise InvalidRequest(message, param="Idempotency-Key")
    return values[0]


def fingerprint(target: str, body: bytes) -> bytes:
    """Hash what makes two requests the same: `target` names the caller and the URL."""
    return hashlib.sha256(target.encode("utf-8", "surrogatepass") + b"\0" + body).digest()


class Idempotency:
    """Runs requests at most once with success for each key. Stored responses are sealed: they may show secrets."""

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher

    async def respond(
        self, request: KeyedRequest, run: Run[AnyResponse], *, handles_repeats: bool, stores: bool = True
    ) -> AnyResponse | Response:
        """Return the response of the first request with this key, running it now if there was none.

        `handles_repeats`: see the module. `stores`: the response may be stored; otherwise the endpoint restores it.
        Raises UnprocessableRequest when the key belongs to another request,
        RequestInFlight when an earlier request takes too long, and what `run` raises.
        """
        reservation = await self._reserve(request, shared=handles_repeats)
        if isinstance(reservation, StoredResponse):
            return await run_in_thread(self._replay, request, reservation)
        response = await ReservedRequest(request, reservation, self._database, self._cipher).run(
            run, exclusive=not handles_repeats, store=stores and not handles_repeats
        )
        if reservation.prior_use != "first":
            _mark_replayed(response)
        return response

    async def _reserve(self, request: KeyedRequest, *, shared: bool) -> Reservation | StoredResponse:
        def reserve() -> Reservation | StoredResponse | None:
            with self._database.connection() as connection:
                return idempotency.reserve(
                    connection,
                    request.account_id,
                    request.key,
                    request.fingerprint,
                    user_id=request.user_id,
                    shared=shared,
                )

        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + LONGEST_WAIT, SHORTEST_PAUSE
        while (result := await run_in_thread(reserve)) is None:
            if loop.time() > deadline:
                message = "An earlier request with this Idempotency-Key is still being processed; try again later."
                raise RequestInFlight(message, param="Idempotency-Key")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        return result

    def _replay(self, request: KeyedRequest, stored: StoredResponse) -> Response:
        try:
            body = self._cipher.decrypt(stored.body, _seal_context(request))
        except InvalidTag:
            raise _response_lost() from None  # the installation's secret key has changed
        response = Response(body, stored.status)
        for name, value in stored.headers:
            response.headers[name] = value
        _mark_replayed(response)
        return response


class ReservedRequest:
    """A request that holds the reservation of its key."""

    def __init__(self, request: KeyedRequest, reservation: Reservation, database: Database, cipher: Cipher) -> None:
        self._request = request
        self._reservation = reservation
        self._database = database
        self._cipher = cipher

    async def run(self, run: Run[AnyResponse], *, exclusive: bool, store: bool) -> AnyResponse:
        """Run the endpoint with the ids derived from the key, then answer or release the reservation.

        `exclusive`: the reservation is renewed meanwhile. `store`: the response is stored, not only that there was one.
        """
        renewal = asyncio.create_task(self._renew()) if exclusive else None
        try:
            response = await run(IdGenerator(self._reservation.seed), self._reservation.prior_use)
        except BaseException as error:
            await self._stop(renewal)
            await self._release(created_nothing=isinstance(error, RequestError | HTTPException))
            if isinstance(error, UniqueViolation) and self._reservation.prior_use != "first":
                raise _response_lost() from error
            raise
        await self._stop(renewal)
        await self._settle(response, store=store)
        return response

    async def _settle(self, response: Response | UnfinishedResponse, *, store: bool) -> None:
        if isinstance(response, Response) and response.status_code >= 300:
            await self._release(created_nothing=True)
        elif store and isinstance(response, Response):
            headers = [(name, value) for name, value in response.headers.items() if name != "content-length"]
            body = self._cipher.encrypt(bytes(response.body), _seal_context(self._request))
            await self._write(idempotency.store_response, self._reservation, response.status_code, headers, body)
        else:
            await self._write(idempotency.store_response, self._reservation, 200)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            try:
                renewed = await run_in_thread(_call, self._database, idempotency.extend, self._reservation)
            except (Unavailable, OperationalError):  # such as a lock that was not granted in time
                continue
            if renewed is None:
                return
            self._reservation = renewed

    async def _stop(self, renewal: "asyncio.Task[None] | None") -> None:
        if renewal is not None:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)

    async def _release(self, *, created_nothing: bool) -> None:
        await self._write(
            lambda connection: idempotency.release(connection, self._reservation, created_nothing=created_nothing)
        )

    async def _write(self, statement: Callable[..., None], *arguments: object) -> None:
        """Write the outcome. If that fails, the lease expires, and a repeat with the same seed finds what exists."""
        try:
            await run_in_thread(_call, self._database, statement, *arguments)
        except (Unavailable, OperationalError) as error:
            log.warning("Request %s: cannot settle its idempotency key: %s", self._request.request_id, error)


def _mark_replayed(response: Response | UnfinishedResponse) -> None:
    if isinstance(response, Response):
        response.headers.update(REPLAYED)
    else:
        response.add_headers(REPLAYED)


def _seal_context(request: KeyedRequest) -> bytes:
    """Return the data that a sealed response is bound to, so that no other account or key can decrypt it."""
    return f"{request.account_id} {request.key}".encode()


def _response_lost() -> Conflict:
    message = (
        "An earlier request with this Idempotency-Key succeeded, but its response cannot be restored: list the objects "
        "to find what it created."
    )
    return Conflict(message, param="Idempotency-Key", code="idempotency_answer_lost")


def _call(database: Database, statement: Callable[..., T], *arguments: object) -> T:
    with database.connection() as connection:
        return statement(connection, *arguments)

"""`Idempotency-Key`: a creating request that comes twice under one key makes one thing and gets one answer.

The first answer is stored, sealed, and told again. While the first request is still at work the second waits for it.
Rows that `join` need neither: their endpoint finds what it made before by its id, and answers from that.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import InvalidTag
from psycopg.errors import UniqueViolation
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from models.access import idempotency
from models.access.idempotency import LEASE, Claim, Stored
from models.platform.database import Database
from models.platform.errors import Conflict, InFlight, InvalidRequest, RequestError, Unavailable
from models.platform.ids import Ids

if TYPE_CHECKING:
    from web.routing import Answer, Call, Row

log = logging.getLogger(__name__)

NAME = "idempotency-key"

#: Visible ASCII.
SANE = re.compile(r"[!-~]{1,255}")

#: Put on an answer that was made for an earlier request.
REPLAYED = {"idempotent-replayed": "true"}

#: Seconds that a request waits for an earlier one with its key; and between two looks, at first and at most.
LONGEST_WAIT = 30.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5

T = TypeVar("T")


async def answer(row: "Row", call: "Call", endpoint: Callable[["Call"], Awaitable["Answer"]]) -> "Answer":
    """The endpoint's answer; where the request has a key, the same one each time."""
    key = key_of(call)
    if key is None:
        return await endpoint(call)
    held = await _claim(call, key, _fingerprint(row, call), shared=row.joins)
    if isinstance(held, Stored):
        return await run_in_threadpool(_told_again, call, key, held)
    made = await Attempt(call, held).answer(endpoint, alone=not row.joins)
    if held.repeat != "first":
        _mark(made)
    return made


def key_of(call: "Call") -> str | None:
    """What the request shows. Raises InvalidRequest."""
    given = call.headers.getlist(NAME)
    if not given:
        return None
    if len(given) > 1 or not SANE.fullmatch(given[0]):
        message = "'Idempotency-Key' should be one text of 1 to 255 visible ASCII characters."
        raise InvalidRequest(message, param="Idempotency-Key")
    return given[0]


class Attempt:
    """A request that holds its key's claim."""

    def __init__(self, call: "Call", claim: Claim) -> None:
        self._call = call
        self._claim = claim
        self._database = call.platform.database

    async def answer(self, endpoint: Callable[["Call"], Awaitable["Answer"]], *, alone: bool) -> "Answer":
        """Run the endpoint with the ids that follow from the key, and settle the claim by what becomes of it.

        `alone`: the claim is renewed meanwhile and the answer stored. Else only that there was one.
        """
        keeper = asyncio.create_task(self._keep()) if alone else None
        try:
            made = await endpoint(replace(self._call, ids=Ids(self._claim.seed), repeat=self._claim.repeat))
        except BaseException as error:
            await self._stop(keeper)
            await self._release(made_nothing=isinstance(error, RequestError | HTTPException))
            if isinstance(error, UniqueViolation) and self._claim.repeat != "first":
                raise _lost() from error
            raise
        await self._stop(keeper)
        await self._settle(made, store=alone)
        return made

    async def _settle(self, made: "Answer", *, store: bool) -> None:
        if isinstance(made, Response) and made.status_code >= 300:
            await self._release(made_nothing=True)
        elif store and isinstance(made, Response):
            headers = [(name, value) for name, value in made.headers.items() if name != "content-length"]
            body = self._call.platform.seal.close(bytes(made.body), _about(self._claim.account_id, self._claim.key))
            await self._write(idempotency.answer, self._claim, made.status_code, headers, body)
        else:
            await self._write(idempotency.answer, self._claim, 200)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            try:
                renewed = await run_in_threadpool(_in, self._database, idempotency.renew, self._claim)
            except Unavailable:
                continue
            if renewed is None:
                return
            self._claim = renewed

    async def _stop(self, keeper: "asyncio.Task[None] | None") -> None:
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _release(self, *, made_nothing: bool) -> None:
        await self._write(lambda connection: idempotency.release(connection, self._claim, made_nothing=made_nothing))

    async def _write(self, statement: Callable[..., None], *arguments: object) -> None:
        """What can't be written changes no answer: the claim then ends by its lease, and its seed finds what is."""
        try:
            await run_in_threadpool(_in, self._database, statement, *arguments)
        except Unavailable as error:
            log.warning("request %s: the idempotency key can't be settled: %s", self._call.request_id, error)


async def _claim(call: "Call", key: str, fingerprint: bytes, *, shared: bool) -> Claim | Stored:
    """The claim of a key, or its answer. Raises Mismatch, and InFlight when an earlier request takes too long."""

    def ask() -> Claim | Stored | None:
        with call.platform.database.connection() as connection:
            return idempotency.claim(connection, call.caller.account_id, key, fingerprint, shared=shared)

    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + LONGEST_WAIT, SHORTEST_PAUSE
    while (found := await run_in_threadpool(ask)) is None:
        if loop.time() > deadline:
            raise InFlight("An earlier request with this Idempotency-Key is still at work.", param="Idempotency-Key")
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
    return found


def _fingerprint(row: "Row", call: "Call") -> bytes:
    """What makes two requests the same: who asks, method, path, query and body.

    An answer may show a secret: it is told to nobody else of the account, who may have fewer rights.
    """
    place = repr((call.caller.user_id, row.method, row.path, sorted(call.path.items()), str(call.query)))
    return hashlib.sha256(place.encode("utf-8", "surrogatepass") + b"\0" + call.body).digest()


def _told_again(call: "Call", key: str, stored: Stored) -> Response:
    try:
        body = call.platform.seal.open(stored.body, _about(call.caller.account_id, key))
    except InvalidTag:
        raise _lost() from None  # the installation's secret is another one now
    told = Response(body, stored.status)
    for name, value in stored.headers:
        told.headers[name] = value
    _mark(told)
    return told


def _mark(made: "Answer") -> None:
    """Say that an answer was made for an earlier request."""
    if isinstance(made, Response):
        made.headers.update(REPLAYED)
    else:
        made.add_headers(REPLAYED)


def _about(account_id: str, key: str) -> bytes:
    """What a sealed answer belongs to: it opens nowhere else."""
    return f"{account_id} {key}".encode()


def _lost() -> Conflict:
    message = (
        "An earlier request with this Idempotency-Key made this already, and its answer is lost: list what there is."
    )
    return Conflict(message, param="Idempotency-Key", code="idempotency_answer_lost")


def _in(database: Database, statement: Callable[..., T], *arguments: object) -> T:
    with database.connection() as connection:
        return statement(connection, *arguments)

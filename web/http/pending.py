"""Answers that are still to come, whose clients may leave before they do."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from web.streams.sse import OnDeparture, departure


class Pending:
    """An ASGI response that is still to come. When its client leaves first, the wait for it ends."""

    def __init__(
        self, wait: Callable[[], Coroutine[Any, Any, Response]], on_departure: OnDeparture | None = None
    ) -> None:
        self._wait = wait
        self._on_departure = on_departure
        self._headers: dict[str, str] = {}

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """More headers, before it is served."""
        self._headers |= headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the answer and send it. Raises ClientDisconnect, and what the wait raises."""
        answer, gone = asyncio.create_task(self._wait()), asyncio.create_task(departure(receive))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await self._abandon()
            response = answer.result()
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
        response.headers.update(self._headers)
        await response(scope, receive, send)

    async def _abandon(self) -> None:
        if self._on_departure is not None:
            await self._on_departure()
        raise ClientDisconnect

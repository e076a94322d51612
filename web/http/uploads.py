"""Read bodies that are too large for memory into a temporary file, within limits."""

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from models.platform.errors import LimitExceeded, Unavailable
from web.http.bodies import BodyTooLarge, declared_length
from web.http.threads import run_in_thread

#: Bytes of an upload, and bytes up to which it stays in memory.
MAX_BYTES, MAX_MEMORY = 64 * 1024 * 1024, 1024 * 1024

#: Seconds within which an upload must arrive, and between two of its chunks.
TIMEOUT, CHUNK_TIMEOUT = 600.0, 30.0

#: Seconds after which to retry when an account has too many uploads in progress.
RETRY_AFTER = 1.0


#: Uploads of one account, and of all accounts, that one process receives or stores at a time.
MAX_OPEN, MAX_OPEN_TOTAL = 4, 32


class OpenUploads:
    """Counts the uploads that are in progress, so that no account fills the disk or the memory."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def count(self, account_id: str) -> Iterator[None]:
        """Count an upload during the block.

        Raises LimitExceeded if the account has MAX_OPEN already, and Unavailable if all have MAX_OPEN_TOTAL.
        """
        if self._open[account_id] >= MAX_OPEN:
            message = f"The account has {MAX_OPEN} uploads in progress. Retry when one of them has ended."
            raise LimitExceeded(message, code="too_many_uploads", retry_after=RETRY_AFTER)
        if self._open.total() >= MAX_OPEN_TOTAL:
            raise Unavailable("This server is receiving too many files. Retry in a few seconds.", retry_after=5)
        self._open[account_id] += 1
        try:
            yield
        finally:
            self._open[account_id] -= 1
            self._open += Counter()  # drops the accounts without uploads


@dataclass(slots=True)
class Upload:
    """A body in a file, positioned at its start. `digest` is the SHA-256 of its content, to compare requests by."""

    file: BinaryIO
    size: int = 0
    lines: int = 0
    digest: bytes = b""

    def close(self) -> None:
        """Delete the file."""
        self.file.close()


async def spool(scope: Scope, receive: Receive) -> Upload:
    """Read the whole body into a file. Raises BodyTooLarge, ClientDisconnect, and HTTPException 408 after a timeout."""
    if declared_length(scope) > MAX_BYTES:
        raise BodyTooLarge(MAX_BYTES)
    # The caller closes it when the request has been handled.
    upload = Upload(cast(BinaryIO, tempfile.SpooledTemporaryFile(MAX_MEMORY)))  # noqa: SIM115
    try:
        async with asyncio.timeout(TIMEOUT):
            await _collect(upload, receive)
        upload.file.seek(0)
        return upload
    except TimeoutError:
        upload.file.close()
        raise HTTPException(408, "The body took too long to arrive", {"connection": "close"}) from None
    except BaseException:
        upload.file.close()
        raise


async def _collect(upload: Upload, receive: Receive) -> None:
    digest, last, more = hashlib.sha256(), b"\n", True
    while more:
        async with asyncio.timeout(CHUNK_TIMEOUT):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        upload.size += len(chunk)
        if upload.size > MAX_BYTES:
            raise BodyTooLarge(MAX_BYTES)
        upload.lines += chunk.count(b"\n")
        digest.update(chunk)
        await run_in_thread(upload.file.write, chunk)
        last, more = chunk[-1:] or last, message.get("more_body", False)
    upload.lines += last != b"\n"
    upload.digest = digest.digest()

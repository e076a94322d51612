"""Bodies that are too large for memory: read into a temporary file, within bounds."""

import asyncio
import hashlib
import tempfile
from dataclasses import dataclass
from typing import BinaryIO, cast

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from web.http.bodies import BodyTooLarge, declared_length

#: Bytes of an upload, of which so many stay in memory.
LARGEST, IN_MEMORY = 64 * 1024 * 1024, 1024 * 1024

#: Seconds that it may take to arrive, and between two of its parts.
PATIENCE, SILENCE = 600.0, 30.0


@dataclass(slots=True)
class Upload:
    """A body in a file, read to its end by nobody yet. `digest` stands for it where requests are compared."""

    file: BinaryIO
    size: int = 0
    lines: int = 0
    digest: bytes = b""


async def spool(scope: Scope, receive: Receive) -> Upload:
    """The whole body, in a file. Raises BodyTooLarge, ClientDisconnect, or a 408 when it takes too long to arrive."""
    if declared_length(scope) > LARGEST:
        raise BodyTooLarge(LARGEST)
    # Whoever gets it closes it, with all that has become of the request.
    upload = Upload(cast(BinaryIO, tempfile.SpooledTemporaryFile(IN_MEMORY)))  # noqa: SIM115
    try:
        async with asyncio.timeout(PATIENCE):
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
        async with asyncio.timeout(SILENCE):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        upload.size += len(chunk)
        if upload.size > LARGEST:
            raise BodyTooLarge(LARGEST)
        upload.lines += chunk.count(b"\n")
        digest.update(chunk)
        await run_in_threadpool(upload.file.write, chunk)
        last, more = chunk[-1:] or last, message.get("more_body", False)
    upload.lines += last != b"\n"
    upload.digest = digest.digest()

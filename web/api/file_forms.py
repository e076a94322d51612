"""Receive the file of a form into the object store while it arrives.

At most one object is in memory. What has been stored belongs to an upload, which the endpoint turns into a file; an
upload that is not completed, after an error or when the client disconnects, is deleted.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from models.accounts import files, uploads
from models.accounts.accounts import Caller
from models.accounts.plans import Limits
from models.accounts.uploads import Upload
from models.platform.errors import InvalidRequest, NotAuthenticated, NotFound
from models.platform.ids import new_id
from pipelines.files.completion import cancel_upload
from pipelines.files.writer import OBJECT_BYTES, PartWriter, no_longer_pending
from web.access.gate import Admission
from web.api.platform import Platform
from web.http.bodies import BodyTooLarge, declared_length
from web.http.disconnects import run_in_background
from web.http.forms import MAX_OVERHEAD, FormReader
from web.http.threads import run_in_thread
from web.http.uploads import CHUNK_TIMEOUT

#: Bytes of a file in one request, and of a part of an upload.
MAX_FILE_BYTES, MAX_PART_BYTES = 512 * 1024 * 1024, 64 * 1024 * 1024

#: Threads that write objects: few, since each keeps memory of the size of an object, and apart from those of other
#: requests, which a slow object store does not delay.
WRITERS = ThreadPoolExecutor(4, thread_name_prefix="objects")

#: Seconds within which a body must arrive.
TIMEOUT = 1800.0

#: Bytes that are reserved at a time for a body without Content-Length.
RESERVED_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FormType:
    """A form with a file.

    file_field  the field of the file
    max_bytes   bytes of the file
    is_part     it is a part of the upload that the path names
    """

    file_field: str
    max_bytes: int
    is_part: bool = False


@dataclass(slots=True)
class ReceivedFile:
    """A form whose file is stored, in an upload of its own or in that of a part.

    completed  set once what is stored belongs to what the request creates
    """

    platform: Platform
    form: FormReader
    writer: PartWriter
    upload: Upload | None
    completed: bool = False

    @property
    def digest(self) -> bytes:
        """A hash of what the form means, to compare requests by."""
        return self.form.digest

    def close(self) -> None:
        """Delete what is stored for nothing, in the background. A part's is deleted with its upload."""
        if not self.completed and self.upload is None:
            run_in_background(self._cancel)

    def _cancel(self) -> None:
        cancel_upload(self.platform.database, self.platform.objects, self.writer.upload_id, self.writer.account_id)


async def receive_file(
    platform: Platform, admission: Admission, scope: Scope, receive: Receive, form_type: FormType
) -> ReceivedFile:
    """Receive a form and store its file. The caller closes it.

    Raises InvalidRequest, BodyTooLarge, LimitExceeded, NotFound and Conflict for an upload, Unavailable,
    ClientDisconnect, and HTTPException 408 after a timeout.
    """
    if admission.identity is None:
        raise NotAuthenticated("This request needs an access token or an API key.")
    scope["unread_body"] = True  # an error is sent first
    if declared_length(scope) > form_type.max_bytes + MAX_OVERHEAD:
        raise BodyTooLarge(form_type.max_bytes)
    room = _Room(platform, admission.identity, admission.limits, declared_length(scope))
    upload = None
    if form_type.is_part:
        upload = await run_in_thread(_read_upload, room, scope["path_params"]["upload_id"])
    form = FormReader(Headers(scope=scope).get("content-type", ""), form_type.file_field)
    upload_id = upload.id if upload else await run_in_thread(room.reserve_first)
    writer = PartWriter(platform.database, platform.objects, upload_id, room.caller.account_id, new_id("part"))
    received = ReceivedFile(platform, form, writer, upload)
    try:
        async with asyncio.timeout(TIMEOUT):
            await _Receiver(received, room, form_type.max_bytes).run(receive)
    except TimeoutError:
        received.close()
        raise HTTPException(408, "The body took too long to arrive", {"connection": "close"}) from None
    except BaseException:
        received.close()
        raise
    scope["unread_body"] = False
    return received


def _read_upload(room: "_Room", upload_id: str) -> Upload:
    with room.platform.database.connection() as connection:
        upload = uploads.read(connection, upload_id, room.caller.account_id, room.caller.user_id)
    if upload is None:
        raise NotFound(f"Upload with id '{upload_id}' not found.", param="upload_id")
    if upload.status != "pending":
        raise no_longer_pending()
    return upload


@dataclass(slots=True)
class _Room:
    """The room that an account has for a file. `reserved` is its bytes that the upload counts for."""

    platform: Platform
    caller: Caller
    limits: Limits
    reserved: int

    def reserve_first(self) -> str:
        """Insert an upload of the declared size. Returns its id. Raises TooLarge and LimitExceeded."""
        account_id, upload_id = self.caller.account_id, new_id("upload")
        with self.platform.database.transaction() as connection:
            files.check_stored_bytes(connection, account_id, self.limits, self.reserved)
            uploads.insert(connection, upload_id, account_id, user_id=self.caller.user_id, size=self.reserved)
        return upload_id

    def reserve(self, upload_id: str, size: int) -> None:
        """Make room for `size` bytes and more that may follow. Raises TooLarge and LimitExceeded.

        A body without Content-Length, and a compressed one, are larger than declared.
        """
        account_id, wanted = self.caller.account_id, size + RESERVED_BYTES
        with self.platform.database.transaction() as connection:
            files.check_stored_bytes(connection, account_id, self.limits, size, file_id=upload_id)
            stored = files.stored_bytes(connection, account_id, without=upload_id)
            limit = self.limits.stored_bytes
            self.reserved = wanted if limit is None else min(wanted, limit - stored)
            uploads.set_size(connection, upload_id, account_id, self.reserved)


class _Receiver:
    """Receives the body of one form."""

    def __init__(self, received: ReceivedFile, room: _Room, max_bytes: int) -> None:
        self._form, self._writer, self._is_part = received.form, received.writer, received.upload is not None
        self._room, self._max_bytes = room, max_bytes
        self._buffer = bytearray()

    async def run(self, receive: Receive) -> None:
        """Receive the whole body, and store the file but for its last object's row. Raises as `receive_file`."""
        more, total = True, 0
        while more:
            message = await self._receive(receive)
            body, more = message.get("body", b""), message.get("more_body", False)
            total += len(body)
            for piece in self._form.feed(body):
                self._buffer += piece
            self._check_size(total)
            if not self._is_part and self._form.size > self._room.reserved:
                await run_in_thread(self._room.reserve, self._writer.upload_id, self._form.size)
            while len(self._buffer) >= OBJECT_BYTES:
                await self._write(OBJECT_BYTES)
        self._form.end()
        if self._buffer or not self._writer.keys:
            await self._write(len(self._buffer))

    async def _receive(self, receive: Receive) -> Message:
        async with asyncio.timeout(CHUNK_TIMEOUT):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message

    def _check_size(self, total: int) -> None:
        if self._form.size > self._max_bytes:
            raise BodyTooLarge(self._max_bytes)
        if total - self._form.size > MAX_OVERHEAD:
            raise InvalidRequest(f"The form has more than {MAX_OVERHEAD} bytes besides the file.", code="invalid_form")

    async def _write(self, size: int) -> None:
        content = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        await asyncio.get_running_loop().run_in_executor(WRITERS, self._writer.write, content)

"""Send the content of a file, or a range of it. A browser stores it and runs nothing of it."""

from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.accounts.files import File
from models.platform.content_disposition import content_disposition
from models.platform.object_store import ObjectStore
from pipelines.files.content import read_content
from pipelines.files.names import served_type
from web.http.ranges import ByteRange, NotSatisfiable, names_etag, requested_range
from web.http.threads import run_in_thread

#: Headers of all content: it is stored, not shown; were it shown, it could run nothing and would belong to no origin.
GUARDED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, no-store",
    "accept-ranges": "bytes",
}


#: Seconds for which a signed URL is valid. Anyone who has it can use it, until the object is deleted.
PRESIGNED_SECONDS = 60


class ContentResponse(Response):
    """A response with a file's content. The object store is asked when it is sent, and not for HEAD.

    url  to which a GET is redirected instead
    """

    def __init__(self, objects: ObjectStore, file: File, request_headers: Headers, url: str | None = None) -> None:
        etag = f'"{file.id}"'  # a file's content never changes
        super().__init__(b"", 200, {**GUARDED, "etag": etag})
        self._objects, self._file, self._url = objects, file, url
        self._range: ByteRange | None = ByteRange(0, file.bytes)
        if names_etag(request_headers, etag):
            self._range, self.status_code = None, 304
            del self.headers["content-length"]
            return
        self.headers["content-disposition"] = content_disposition(file.filename)
        self.headers["content-type"] = served_type(file.content_type)
        try:
            part = requested_range(request_headers, file.bytes, etag)
        except NotSatisfiable:
            self._range, self.status_code = None, 416
            self.headers["content-range"] = f"bytes */{file.bytes}"
            return
        if part is not None:
            self._range, self.status_code = part, 206
            self.headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{file.bytes}"
        self.headers["content-length"] = str(self._range.end - self._range.start)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the content. Raises NotFound if it was deleted, and Unavailable, before anything is sent."""
        if self._url is not None and scope["method"] == "GET":
            await Response(b"", 302, {"location": self._url, "cache-control": "no-store"})(scope, receive, send)
            return
        if self._range is None or scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        start, length = self._range.start, self._range.end - self._range.start
        content = await run_in_thread(read_content, self._objects, self._file, start, length)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while (chunk := await run_in_thread(_next, content)) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def presigned_url(objects: ObjectStore, file: File) -> str | None:
    """Return a URL of the object store for a file in one object; None if the store cannot sign one."""
    if len(file.objects) != 1:
        return None
    return objects.presign(file.objects[0].key, PRESIGNED_SECONDS, file.filename, served_type(file.content_type))


def _next(content: Iterator[bytes]) -> bytes | None:
    return next(content, None)

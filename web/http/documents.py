"""Documents that stay the same for the life of the process, with their entity tags."""

import hashlib
from collections.abc import Callable
from functools import cached_property

from starlette.datastructures import Headers
from starlette.responses import Response


class CachedDocument:
    """A document that is rendered when it is first requested and then kept."""

    def __init__(self, render: Callable[[], bytes], media_type: str) -> None:
        self._render = render
        self._media_type = media_type

    @cached_property
    def content(self) -> bytes:
        """The rendered document."""
        return self._render()

    @cached_property
    def etag(self) -> str:
        """The entity tag of the content (RFC 9110, 8.8.3)."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    def response(self, headers: Headers) -> Response:
        """Return the document, or status 304 when the request's `If-None-Match` names the current version."""
        sent = {"etag": self.etag, "cache-control": "no-cache"}
        if self.etag in headers.get("if-none-match", ""):
            return Response(status_code=304, headers=sent)
        return Response(self.content, headers=sent, media_type=self._media_type)

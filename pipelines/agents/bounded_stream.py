"""Read the body of a response, but not more of it than a budget has left, whatever it unpacks to."""

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable

import httpx2

#: zlib's option for a stream in the format of gzip or zlib, whichever its header shows.
ANY_HEADER = zlib.MAX_WBITS | 32


class ResponseTooLarge(httpx2.StreamError):
    """The responses have more bytes than their budget."""


class ByteBudget:
    """The bytes that responses may have together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit

    def spend(self, count: int) -> None:
        """Take bytes. Raises ResponseTooLarge if fewer are left."""
        self.left -= count
        if self.left < 0:
            raise ResponseTooLarge(f"The server sent more than {self.limit:,} bytes.")


class BoundedStream(httpx2.AsyncByteStream):
    """The decompressed body of a response.

    translate  returns the error to raise for one of the transport
    """

    def __init__(
        self,
        parts: AsyncIterable[bytes],
        encoding: str,
        budget: ByteBudget,
        translate: Callable[[Exception], Exception],
    ) -> None:
        self._parts = parts
        self._encoding = encoding.strip().lower()
        self._budget = budget
        self._translate = translate

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body. Raises ResponseTooLarge, and httpx2.DecodingError for a body that cannot be unpacked."""
        unpack = self._unpacker()
        try:
            async for part in self._parts:
                unpacked = unpack(part)
                self._budget.spend(len(unpacked))
                yield unpacked
        except Exception as error:
            if (translated := self._translate(error)) is error:
                raise
            raise translated from error

    async def aclose(self) -> None:
        """Close the connection's side of the body."""
        if (close := getattr(self._parts, "aclose", None)) is not None:
            await close()

    def _unpacker(self) -> Callable[[bytes], bytes]:
        if self._encoding in ("", "identity"):
            return bytes
        if self._encoding not in ("gzip", "x-gzip", "deflate"):
            raise httpx2.DecodingError(
                f"The server sent the encoding '{self._encoding[:40]}', which was not asked for."
            )
        decompressor = zlib.decompressobj(ANY_HEADER)
        return lambda part: self._inflate(decompressor, part)

    def _inflate(self, decompressor: "zlib._Decompress", part: bytes) -> bytes:
        """Unpack a part: at most one byte more than the budget has left, which is enough to exceed it."""
        try:
            return decompressor.decompress(part, max(1, self._budget.left + 1))
        except zlib.error:
            raise httpx2.DecodingError("The body of the server's response cannot be unpacked.") from None

"""Parse multipart/form-data (RFC 7578) piece by piece: one file, whose content is passed on, and few small fields.

The fields may be in any order, before and after the file.
"""

import hashlib
import logging
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from models.platform.errors import InvalidRequest
from models.platform.texts import truncate

# It warns of what clients send; they get an error.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

#: Fields of a form, the file included, and bytes of the value of one.
MAX_FIELDS, MAX_FIELD_BYTES = 16, 4096

#: Bytes that everything but the content of the file may have.
MAX_OVERHEAD = 64 * 1024

#: Bytes of the content that are kept, to recognise its format.
HEAD_BYTES = 4096


@dataclass(slots=True)
class _Part:
    """A part of the form that is being read."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    is_file: bool = False
    value: bytearray = field(default_factory=bytearray)


class FormReader:
    """Reads one form.

    fields    the values of the fields, without the file
    filename  the name of the file as the client sent it; None until it has begun
    size      bytes of the file's content so far
    head      its first bytes
    """

    def __init__(self, content_type: str, file_field: str) -> None:
        """Read a body of this Content-Type, whose field `file_field` is the file. Raises InvalidRequest."""
        media_type, options = parse_options_header(content_type.encode("latin-1", "replace").decode("latin-1"))
        if media_type != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidRequest(
                f"Send a form with the media type multipart/form-data, whose field '{file_field}' is the file.",
                code="invalid_form",
            )
        self._file_field = file_field
        self._part = _Part()
        self._header = (bytearray(), bytearray())
        self._content: list[bytes] = []
        self._digest = hashlib.sha256()
        self._count = 0
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self.head = b""
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                },
            )
        except FormParserError as error:
            raise _invalid(str(error)) from None

    def feed(self, data: bytes) -> list[bytes]:
        """Read the next piece of the body. Returns what it has of the file's content. Raises InvalidRequest."""
        self._content = []
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _invalid(str(error)) from None
        return self._content

    def end(self) -> None:
        """End the body. Raises InvalidRequest if the form is not complete, or has no file."""
        if self._parser.state != MultipartState.END:
            raise _invalid("it ends before its last boundary")
        if self.filename is None:
            raise InvalidRequest(
                f"Missing required parameter: '{self._file_field}'. Send it as a file, with a filename.",
                param=self._file_field,
                code="missing_required_parameter",
            )

    @property
    def digest(self) -> bytes:
        """The SHA-256 of what the form means: two forms with the same are the same request."""
        named = repr((sorted(self.fields.items()), self.filename)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(named + self._digest.digest()).digest()

    def _begin_part(self) -> None:
        self._part = _Part()
        self._count += 1
        if self._count > MAX_FIELDS:
            raise _invalid(f"it has more than {MAX_FIELDS} fields")

    def _end_header(self) -> None:
        name, value = self._header
        self._part.headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        part = self._part
        disposition = part.headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition.decode("latin-1"))
        if kind != b"form-data" or b"name" not in options:
            raise _invalid("a part has no name")
        if part.headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
            raise _invalid("the content of a part is encoded")
        part.name = options[b"name"].decode("utf-8", "replace")
        part.is_file = part.name == self._file_field
        if part.is_file:
            self._begin_file(options.get(b"filename", b""))
        elif part.name in self.fields:
            raise InvalidRequest(f"The field '{truncate(part.name)}' is repeated.", param=truncate(part.name))

    def _begin_file(self, filename: bytes) -> None:
        if self.filename is not None:
            raise InvalidRequest(f"Send one '{self._file_field}' per request.", param=self._file_field)
        self.filename = filename.decode("utf-8", "replace")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._part.is_file:
            self._content.append(piece)
            self._digest.update(piece)
            self.size += len(piece)
            if len(self.head) < HEAD_BYTES:
                self.head = (self.head + piece)[:HEAD_BYTES]
        else:
            self._part.value += piece
            if len(self._part.value) > MAX_FIELD_BYTES:
                name = truncate(self._part.name)
                raise InvalidRequest(f"The field '{name}' has more than {MAX_FIELD_BYTES} bytes.", param=name)

    def _end_part(self) -> None:
        if not self._part.is_file:
            self.fields[self._part.name] = self._part.value.decode("utf-8", "replace").replace("\0", "")


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The form cannot be read: {reason}.", code="invalid_form")

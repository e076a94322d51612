"""Read the text of files: texts in UTF-8 as they are, and what a PDF contains."""

from collections.abc import Callable

from models.accounts.files import File
from models.platform.errors import NotFound
from models.platform.object_store import DamagedObject, ObjectStore
from pipelines.files.content import read_content
from pipelines.files.pdf_text import pdf_text
from pipelines.files.readable_types import PDF, is_readable, media_type, unreadable_type
from pipelines.files.unreadable import UnreadableFile

#: Bytes of a text and of a PDF that are read, and characters of the text of either.
MAX_TEXT_BYTES, MAX_PDF_BYTES, MAX_CHARACTERS = 8 << 20, 32 << 20, 1_000_000


def check_readable(content_type: str, size: int) -> None:
    """Raise UnreadableFile for a type or a size of file that is never read."""
    if not is_readable(content_type):
        raise UnreadableFile(unreadable_type(content_type))
    limit = MAX_PDF_BYTES if media_type(content_type) == PDF else MAX_TEXT_BYTES
    if size > limit:
        raise UnreadableFile(f"it has {size:,} bytes, and at most {limit:,} are read")


def read_text(objects: ObjectStore, file: File, check: Callable[[], None], max_characters: int = MAX_CHARACTERS) -> str:
    """Return the text of a file. Raises UnreadableFile, Unavailable, and what `check` raises to stop."""
    check_readable(file.content_type, file.bytes)
    try:
        content = b"".join(read_content(objects, file))
    except (NotFound, DamagedObject):
        raise UnreadableFile("its content is missing or damaged") from None
    return text_of(content, file.content_type, check, max_characters)


def text_of(content: bytes, content_type: str, check: Callable[[], None], max_characters: int = MAX_CHARACTERS) -> str:
    """Return the text of a content. Raises UnreadableFile, and what `check` raises to stop."""
    check_readable(content_type, len(content))
    if media_type(content_type) == PDF:
        return pdf_text(content, max_characters, check).replace("\0", "")
    try:
        text = content.decode("utf-8-sig").replace("\0", "")
    except UnicodeDecodeError:
        raise UnreadableFile("it is not a text in UTF-8") from None
    if len(text) > max_characters:
        raise UnreadableFile(f"it has more than {max_characters:,} characters")
    return text

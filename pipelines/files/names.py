"""Return names and types of files that are safe to display and to serve."""

import codecs
import unicodedata

#: Bytes of a name in UTF-8: more, no common file system can store.
MAX_NAME = 255

#: Categories of characters that are removed: controls, formats such as the marks that reverse text, surrogates,
#: private and unassigned ones, and separators of lines and paragraphs.
REMOVED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

#: Types that browsers show without running anything. All others are served as bytes.
SERVED_AS_THEY_ARE = frozenset({
    "application/gzip", "application/json", "application/jsonl", "application/pdf", "application/vnd.apache.parquet",
    "application/x-ndjson", "application/zip", "audio/mpeg", "audio/wav", "audio/ogg", "image/gif", "image/jpeg",
    "image/png", "image/webp", "text/csv", "text/markdown", "text/plain", "video/mp4",
})  # fmt: skip

#: The first bytes of formats, each with its offset.
SIGNATURES = (
    (0, b"%PDF-", "application/pdf"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (4, b"ftyp", "video/mp4"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
)

#: The types of texts by the ending of the name.
TEXTS = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "md": "text/markdown",
}


def safe_filename(name: str) -> str:
    """Return the last part of a path without control characters and leading dots, at most MAX_NAME bytes."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    kept = "".join(character for character in name if unicodedata.category(character) not in REMOVED)
    kept = " ".join(kept.split()).strip(". ")
    stem, dot, ending = kept.rpartition(".")
    if not dot or len(ending.encode()) > MAX_NAME // 2:
        return _cut(kept, MAX_NAME) or "file"
    return _cut(stem, MAX_NAME - len(ending.encode()) - 1) + dot + ending


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode("utf-8", "ignore")


def detect_type(head: bytes, filename: str, *, declared: str = "application/octet-stream") -> str:
    """Return the type of a file by its first bytes; of a text by the ending of its name. HTML is a text.

    declared  the type of bytes in another format
    """
    for offset, signature, media_type in SIGNATURES:
        if head.startswith(signature, offset):
            return media_type
    try:  # the last character may be cut off
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return declared
    if "\0" in text:
        return declared
    return TEXTS.get(filename.rpartition(".")[2].lower(), "text/plain")


def served_type(content_type: str) -> str:
    """Return the type with which a file is served: never one that a browser runs, such as HTML."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in SERVED_AS_THEY_ARE:
        return "application/octet-stream"
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
